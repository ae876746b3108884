"""Step 4 of Expert-AD: what people decide about chains, how far they agree, and the same as a table for a spreadsheet.

Each reviewer has a file of decisions, one line each, written through at every decision; the last line about a chain counts. A decision
belongs to the very text that was read: when a teacher writes a new one, it is open again.
"""

import csv
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from iadr1.errors import DatasetError
from iadr1.expert_ad.build import Decide

VERDICTS = ("accept", "edit", "reject")
COLUMNS = ("id", "part", "image", "mask", "defective", "location", "type", "findings", "chain", "hash", "verdict", "edited_chain", "note")
_REVIEWER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_FORMULA = ("=", "+", "-", "@", "\t")  # what a spreadsheet would compute

Decisions = dict[str, dict[str, "Decision"]]  # by reviewer, then by id


@dataclass(frozen=True, slots=True)
class Decision:
    """What one person says of a chain; `chain` is the text to learn, `hash` that of the text that was read."""

    id: str
    verdict: str
    chain: str
    hash: str
    note: str = ""


def hash_of(chain: str) -> str:
    """A short hash of the text that is reviewed."""
    return hashlib.sha256(chain.encode()).hexdigest()[:16]


def decide(row: Mapping[str, Any], verdict: str, *, chain: str = "", note: str = "") -> Decision:
    """A decision about a row of the chains file; raises DatasetError for an unknown verdict, an empty edit, or a row without chain."""
    if not row["chain"]:
        raise DatasetError(f"{row['id']}: has no chain to review ({row['fault']}).")
    if verdict not in VERDICTS:
        raise DatasetError(f"{row['id']}: a verdict is one of {', '.join(VERDICTS)}; found {verdict!r}.")
    text = " ".join(chain.split()) if verdict == "edit" else row["chain"]
    if not text:
        raise DatasetError(f"{row['id']}: an edit needs the new chain; found none. Write it, or reject the row.")
    return Decision(row["id"], "accept" if text == row["chain"] and verdict == "edit" else verdict, text, hash_of(row["chain"]), note)


def record(folder: Path, reviewer: str, decisions: Iterable[Decision]) -> None:
    """Append decisions to a reviewer's file, and return when they are on the disk."""
    path = _file(folder, reviewer)
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell() and not _ends_line(path):
            file.write(b"\n")  # a kill cut the last line: it counts for nothing
        file.write("".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in decisions).encode())
        file.flush()
        os.fsync(file.fileno())


def read_decisions(folder: Path) -> Decisions:
    """The last decision of each reviewer about each row; a line that was cut by a kill counts for nothing."""
    return {path.stem: {each.id: each for each in _lines(path)} for path in sorted(folder.glob("*.jsonl"))}


def decisions_of(folder: Path, *, reviewed_only: bool = False) -> Decide:
    """The chain that reviewers let through for (id, chain): rejected by half of them is rejected; edits that differ are, too."""
    known = read_decisions(folder)

    def settled(row_id: str, chain: str) -> str | None:
        """The chain as it was decided, None where it is left out."""
        found = [decisions[row_id] for decisions in known.values() if row_id in decisions and decisions[row_id].hash == hash_of(chain)]
        if not found:
            return None if reviewed_only else chain
        if 2 * sum(each.verdict == "reject" for each in found) >= len(found):
            return None
        edits = Counter(each.chain for each in found if each.verdict == "edit").most_common(2)
        if not edits:
            return chain
        return None if len(edits) > 1 and edits[0][1] == edits[1][1] else edits[0][0]

    return settled


def outdated(folder: Path, chains: Mapping[str, str]) -> int:
    """How many decisions are about another text than the chain of their row, or about a row that is not there."""
    decided = [each for decisions in read_decisions(folder).values() for each in decisions.values()]
    return sum(each.id not in chains or each.hash != hash_of(chains[each.id]) for each in decided)


def agreement(decisions: Decisions) -> dict[str, Any]:
    """How many each reviewer decided, Cohen's kappa of every two and Fleiss' kappa of all, on the chains that they share."""
    verdicts = {reviewer: {(each.id, each.hash): each.verdict for each in found.values()} for reviewer, found in decisions.items()}
    pairs = {f"{one} and {other}": _paired(verdicts[one], verdicts[other]) for one, other in combinations(verdicts, 2)}
    shared = sorted(frozenset.intersection(*map(frozenset, verdicts.values()))) if verdicts else []
    ratings = [[found[key] for found in verdicts.values()] for key in shared]
    return {
        "decided": {reviewer: dict(Counter(found.values())) for reviewer, found in verdicts.items()},
        "cohen": pairs,
        "fleiss": {"shared": len(shared), "kappa": fleiss_kappa(ratings)} if len(verdicts) > 2 else None,
    }


def cohen_kappa(one: Sequence[str], other: Sequence[str]) -> float | None:
    """Agreement of two raters beyond chance; None without ratings, or when both always say the same one thing."""
    if not one:
        return None
    observed = sum(a == b for a, b in zip(one, other, strict=True)) / len(one)
    first, second = Counter(one), Counter(other)
    chance = sum(first[label] * second[label] for label in first) / len(one) ** 2
    return None if chance == 1 else (observed - chance) / (1 - chance)


def fleiss_kappa(ratings: Sequence[Sequence[str]]) -> float | None:
    """Agreement of n raters, one row of n labels an item; None where it is not defined."""
    if not ratings or len(ratings[0]) < 2:
        return None
    n, totals = len(ratings[0]), Counter(label for row in ratings for label in row)
    observed = sum(sum(count * (count - 1) for count in Counter(row).values()) / (n * (n - 1)) for row in ratings) / len(ratings)
    chance = sum((count / (n * len(ratings))) ** 2 for count in totals.values())
    return None if chance == 1 else (observed - chance) / (1 - chance)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a build that have a chain to review."""
    path = folder / "chains.jsonl"
    if not path.is_file():
        raise DatasetError(f"{path}: no such file. Run `iadr1 expert-ad build --into {folder}` first.")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["chain"]]


def export_csv(rows: Iterable[Mapping[str, Any]], decisions: Mapping[str, Decision], path: Path) -> None:
    """A table of rows with one person's decisions so far; the last three columns are to be filled in."""
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows({name: _safe(value) for name, value in _table_row(row, decisions.get(row["id"])).items()} for row in rows)


def import_csv(rows: Iterable[Mapping[str, Any]], path: Path) -> list[Decision]:
    """The decisions in a table; rows without a verdict are open. Raises DatasetError that names the line."""
    known = {row["id"]: row for row in rows}
    decisions = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        missing = {"id", "hash", "verdict", "edited_chain", "note"} - set(table.fieldnames or ())
        if missing:
            raise DatasetError(f"{path}: lacks the columns {', '.join(sorted(missing))}. Export a table and fill that in.")
        for line in table:
            cells = {name: _plain(value or "") for name, value in line.items() if name}
            if cells["verdict"].strip():
                decisions.append(_imported(cells, known, f"{path}:{table.line_num}"))
    return decisions


def _imported(cells: Mapping[str, str], known: Mapping[str, Mapping[str, Any]], where: str) -> Decision:
    row = known.get(cells["id"])
    if row is None:
        raise DatasetError(f"{where}: no row {cells['id']!r}. Export the table again; ids must stay as they are.")
    if cells["hash"] != hash_of(row["chain"]):
        raise DatasetError(f"{where}: the chain of {cells['id']} has changed since the table was exported. Export it again.")
    try:
        return decide(row, cells["verdict"].strip().lower(), chain=cells["edited_chain"], note=cells["note"])
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}") from error


def _table_row(row: Mapping[str, Any], decision: Decision | None) -> dict[str, str]:
    valid = decision if decision and decision.hash == hash_of(row["chain"]) else None
    return {
        "id": row["id"], "part": row["part"], "image": row["image"], "mask": row["mask"] or "", "defective": "yes" if row["anomalous"] else "no",
        "location": row["location"] or "", "type": row["type"] or "", "findings": "; ".join(each["reason"] for each in row["findings"]),
        "chain": row["chain"], "hash": hash_of(row["chain"]), "verdict": valid.verdict if valid else "",
        "edited_chain": valid.chain if valid and valid.verdict == "edit" else "", "note": valid.note if valid else "",
    }  # fmt: skip


def _safe(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _plain(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


def _paired(one: Mapping[tuple[str, str], str], other: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    shared = sorted(one.keys() & other.keys())
    return {
        "shared": len(shared),
        "same": sum(one[key] == other[key] for key in shared),
        "kappa": cohen_kappa([one[key] for key in shared], [other[key] for key in shared]),
    }


def _file(folder: Path, reviewer: str) -> Path:
    if not _REVIEWER.fullmatch(reviewer):
        raise DatasetError(f"a reviewer's name has up to 40 letters, digits, - and _, a letter or digit first; found {reviewer!r}.")
    return folder / f"{reviewer}.jsonl"


def _lines(path: Path) -> list[Decision]:
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(Decision(**json.loads(line)))
        except (json.JSONDecodeError, TypeError):
            continue
    return found


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
