"""Inspections for a person: lines in a terminal, pictures with the verdict on them, and one page without script that needs no network."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from textwrap import fill

from iadr1.inspection import Inspection
from iadr1.marked import WORDS, chance, marked
from iadr1.report_tables import table

THUMBNAIL = 320  # pixels of the longer side
KINDS = {"Yes": "defect", "No": "good", None: "none"}
ORDER = ("Yes", None, "No")


def told(found: Inspection, *, model: str, picture: Path | None) -> str:
    """One inspection as lines: the answer, where, what, why."""
    sure = f", P(yes) {chance(found)}" if chance(found) else ""
    lines = [f"{found.image}: {WORDS[found.answer]}{sure}"]
    if found.error:
        lines += ["never taken for good: " + found.error]
    if found.answer == "Yes":
        lines += _labelled("where", found.location or "not said") + ["           " + row for row in _drawn(found)]
        lines += _labelled("type", found.type or "not said")
    lines += _labelled("reasoning", found.reasoning or "none") if found.answer else []
    if found.answer and found.status != "ok":
        lines += _labelled("form", f"{found.status}: the answer can be read, the form is not the one that was trained")
    lines += _labelled("picture", str(picture)) if picture else []
    return "\n".join([*lines, *_labelled("by", model + ("" if found.seconds is None else f" in {found.seconds:.2f} s"))])


def table_of(found: Sequence[Inspection]) -> str:
    """One row an image."""
    return table(["image", "answer", "P(yes)", "where", "type", "s"], [[_shortened(cell) for cell in _cells(one)] for one in found])


def summary(found: Sequence[Inspection]) -> str:
    """How many are what."""
    counts = Counter(one.answer for one in found)
    return f"{len(found)} images: {counts['Yes']} defective, {counts['No']} good, {counts[None]} without an answer."


def save_pictures(found: Sequence[Inspection], out: Path) -> dict[str, Path]:
    """Write each image with its verdict drawn on it below `out`; the files by the images' names."""
    out.mkdir(parents=True, exist_ok=True)
    names = _names(found)
    for image, one in ((one.image, one) for one in found if one.image in names):
        marked(one).save(out / names[image])
    return {image: out / name for image, name in names.items()}


def save_page(found: Sequence[Inspection], out: Path, *, model: str) -> Path:
    """Write index.html: every picture with what the model says, filtered by a click; it holds its pictures itself."""
    names = _names(found)
    ordered = sorted(found, key=lambda one: ORDER.index(one.answer))
    counts = Counter(KINDS[one.answer] for one in found)
    page = files("iadr1").joinpath("inspection.html").read_text(encoding="utf-8")
    texts = {
        "summary": escape(summary(found)),
        "model": escape(model),
        "cards": "\n".join(_card(one, names.get(one.image)) for one in ordered),
        **{kind: str(counts[kind]) for kind in KINDS.values()},
    }
    for name, text in texts.items():
        # The cards come last: what a model says must not be taken for a place to fill.
        if name != "cards":
            page = page.replace(f"[[{name}]]", text)
    (out / "index.html").write_text(page.replace("[[cards]]", texts["cards"]), encoding="utf-8")
    return out / "index.html"


def _names(found: Sequence[Inspection]) -> Mapping[str, str]:
    """A file name of its own for every image that could be read."""
    names: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for one in found:
        if one.status is not None:
            stem = Path(one.image).stem
            while taken[stem]:
                taken[stem] += 1
                stem = f"{stem}-{taken[stem]}"
            taken[stem] += 1
            names[one.image] = f"{stem}.png"
    return names


def _card(one: Inspection, file: str | None) -> str:
    rows = [("where", one.location), ("type", one.type)] if one.answer == "Yes" else []
    rows += [("P(yes)", chance(one)), ("reasoning", one.reasoning), ("error", one.error)]
    rows += [("text", one.text if one.status not in (None, "ok") else None)]
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows if value)
    shown = f'<img loading="lazy" src="{_thumbnail(one)}" alt="{escape(WORDS[one.answer])}">' if file else ""
    head = f"<h2>{escape(WORDS[one.answer])}</h2><p>{escape(one.image)}</p>"
    return f'<article class="{KINDS[one.answer]}">{shown}<div>{head}<dl>{told}</dl></div></article>'


def _thumbnail(one: Inspection) -> str:
    picture, content = marked(one), io.BytesIO()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    picture.save(content, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def _labelled(label: str, text: str) -> list[str]:
    return fill(text, 100, initial_indent=f"{label:11}", subsequent_indent=" " * 11).splitlines()


def _drawn(found: Inspection) -> list[str]:
    """The grid in letters; nothing where the words name no place."""
    size = range(found.grid) if found.cells else ()
    return [" ".join("#" if (row, column) in found.cells else "·" for column in size) for row in size]


def _cells(one: Inspection) -> list[str]:
    where, kind = (one.location or "", one.type or "") if one.answer == "Yes" else ("", "")
    return [one.image, WORDS[one.answer], chance(one), where, kind, "" if one.seconds is None else f"{one.seconds:.2f}"]


def _shortened(text: str) -> str:
    return text if len(text) <= 48 else "…" + text[-47:]
