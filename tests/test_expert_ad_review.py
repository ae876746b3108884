"""What people decide about chains is kept at once, counts for the text that they read, and can be compared between them."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score

from iadr1.cli import main
from iadr1.errors import DatasetError
from iadr1.expert_ad.review import agreement, cohen_kappa, decide, decisions_of, fleiss_kappa, hash_of, read_decisions, read_rows, record
from iadr1.samples import read_samples
from tests import chromium, layouts
from tests.stages import ROOT
from tests.test_expert_ad_build import built_into

ROW = {"id": "a/b", "chain": "a line shows.", "fault": None}
OTHER = {"id": "c/d", "chain": "all is well.", "fault": None}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    layouts.parts(folder / "images")
    assert built_into(folder / "out", folder / "images") == 0
    return folder / "out"


@pytest.fixture
def folder(build: Path, tmp_path: Path) -> Path:
    """A build that nobody has reviewed."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "chains.jsonl").write_bytes((build / "chains.jsonl").read_bytes())
    return tmp_path / "out"


@pytest.mark.parametrize(
    "verdicts, left",
    [
        ([], "a line shows."),
        (["accept"], "a line shows."),
        (["reject"], None),
        (["accept", "reject"], None),
        (["accept", "accept", "reject"], "a line shows."),
        (["accept", "a dark line shows."], "a dark line shows."),
        (["a dark line shows.", "a black line shows."], None),
        (["a dark line shows.", "a black line shows.", "a dark line shows."], "a dark line shows."),
    ],
)
def test_reviewers_settle_a_chain_together(tmp_path: Path, verdicts: list[str], left: str | None) -> None:
    for number, verdict in enumerate(verdicts):
        edited = verdict not in ("accept", "reject")
        record(tmp_path, f"r{number}", [decide(ROW, "edit" if edited else verdict, chain=verdict)])
    assert decisions_of(tmp_path)("a/b", ROW["chain"]) == left  # type: ignore[arg-type]
    assert decisions_of(tmp_path)("a/b", "another text") == "another text"
    assert decisions_of(tmp_path, reviewed_only=True)("a/b", "another text") is None


def test_the_last_decision_counts_and_one_that_a_kill_cut_does_not(tmp_path: Path) -> None:
    record(tmp_path, "ann", [decide(ROW, "accept"), decide(OTHER, "accept")])
    record(tmp_path, "ann", [decide(ROW, "reject")])
    with (tmp_path / "ann.jsonl").open("a") as file:
        file.write('{"id": "a/b", "verd')
    record(tmp_path, "ann", [decide(OTHER, "reject")])
    assert {row_id: each.verdict for row_id, each in read_decisions(tmp_path)["ann"].items()} == {"a/b": "reject", "c/d": "reject"}


@pytest.mark.parametrize(
    "verdict, chain, message",
    [("maybe", "", "a verdict is one of accept, edit, reject; found 'maybe'"), ("edit", "  ", "an edit needs the new chain")],
)
def test_a_decision_that_is_none_is_refused(verdict: str, chain: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        decide(ROW, verdict, chain=chain)


@pytest.mark.parametrize("name", ["", "../x", "a b", "-a", "x" * 41])
def test_a_reviewer_has_a_name_that_a_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="a reviewer's name"):
        record(tmp_path, name, [decide(ROW, "accept")])


@pytest.mark.parametrize("one, other", [("aaarrr", "aarrra"), ("aeraer", "aeraer"), ("aaaaar", "aaaara"), ("arar", "rara")])
def test_cohens_kappa_is_that_of_scikit_learn(one: str, other: str) -> None:
    assert cohen_kappa(one, other) == pytest.approx(cohen_kappa_score(list(one), list(other)))


def test_kappa_is_not_defined_without_ratings_or_variety() -> None:
    assert cohen_kappa("", "") is cohen_kappa("aa", "aa") is fleiss_kappa([]) is fleiss_kappa([["a", "a"]]) is None


def test_fleiss_kappa_is_that_of_his_paper() -> None:
    # Fleiss 1971, in the worked example of 10 subjects, 14 raters and 5 categories: 0.210.
    counts = [(0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
              (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7)]  # fmt: skip
    ratings = [[str(label) for label, times in enumerate(row) for _ in range(times)] for row in counts]
    assert fleiss_kappa(ratings) == pytest.approx(0.210, abs=0.0005)


def test_agreement_is_told_for_every_two_reviewers_and_for_all(tmp_path: Path) -> None:
    for name, verdicts in {"ann": "aarr", "bob": "aarr", "cem": "arar"}.items():
        rows = [{"id": str(number), "chain": "text", "fault": None} for number in range(4)]
        record(tmp_path, name, [decide(row, {"a": "accept", "r": "reject"}[each]) for row, each in zip(rows, verdicts, strict=True)])
    found = agreement(read_decisions(tmp_path))
    assert found["cohen"]["ann and bob"] == {"shared": 4, "same": 4, "kappa": 1.0}
    assert found["cohen"]["ann and cem"] == {"shared": 4, "same": 2, "kappa": 0.0}
    assert found["fleiss"] == {"shared": 4, "kappa": pytest.approx(1 / 3)}
    assert found["decided"]["cem"] == {"accept": 2, "reject": 2}


# --- the table -------------------------------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def test_a_table_goes_out_and_comes_back(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    assert main(["expert-ad", "review", str(folder), "--reviewer", "ann", "--export", str(table)]) == 0
    rows = lines(table)
    rows[0]["verdict"], rows[1]["verdict"], rows[1]["note"] = "Accept", "reject", "=cmd()"
    rows[2] |= {"verdict": "edit", "edited_chain": "-a new chain, with a comma"}
    write(table, rows)
    assert main(["expert-ad", "review", str(folder), "--reviewer", "ann", "--import", str(table)]) == 0
    found = read_decisions(folder / "reviews")["ann"]
    assert [found[row["id"]].verdict for row in rows[:3]] == ["accept", "reject", "edit"] and len(found) == 3
    assert found[rows[2]["id"]].chain == "-a new chain, with a comma"
    main(["expert-ad", "review", str(folder), "--reviewer", "ann", "--export", str(table)])
    again = lines(table)
    assert again[1]["note"] == "'=cmd()" and again[2]["edited_chain"].startswith("'-a new")  # no spreadsheet computes them
    main(["expert-ad", "review", str(folder), "--reviewer", "ann", "--import", str(table)])
    assert read_decisions(folder / "reviews")["ann"] == found


@pytest.mark.parametrize(
    "change, message",
    [
        ({"id": "x"}, "table.csv:2: no row 'x'"),
        ({"hash": "0"}, "table.csv:2: the chain of .* has changed since the table was exported"),
        ({"verdict": "yes"}, "table.csv:2: .*a verdict is one of"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    table = tmp_path / "table.csv"
    main(["expert-ad", "review", str(folder), "--reviewer", "ann", "--export", str(table)])
    rows = lines(table)
    rows[0] |= {"verdict": "accept"} | change
    write(table, rows)
    assert main(["expert-ad", "review", str(folder), "--reviewer", "ann", "--import", str(table)]) == 1
    import re

    assert re.search(message, capsys.readouterr().err) and read_decisions(folder / "reviews") == {}


def test_what_was_rejected_or_edited_is_so_in_the_next_build(tmp_path: Path) -> None:
    layouts.parts(tmp_path / "images")
    built_into(tmp_path / "out", tmp_path / "images")
    rows = [row for row in read_rows(tmp_path / "out") if row["part"] == "pa_sft"]
    edited = rows[1]["chain"].replace("part", "piece") + " all of this can be seen."
    record(tmp_path / "out" / "reviews", "ann", [decide(rows[0], "reject"), decide(rows[1], "edit", chain=edited)])
    built_into(tmp_path / "out", tmp_path / "images")
    learned = {row.id: row.reasoning for row in read_samples(tmp_path / "out" / "pa_sft.jsonl")}
    assert rows[0]["id"] not in learned and learned[rows[1]["id"]] == edited and len(learned) == 10


# --- the page --------------------------------------------------------------------------------------------------------------------------


def client(folder: Path, host: str = "127.0.0.1") -> Any:
    from fastapi.testclient import TestClient

    from iadr1.expert_ad.review_page import review_app

    return TestClient(review_app(folder), base_url=f"http://{host}")


def test_the_page_needs_nothing_from_elsewhere_and_runs_its_own_script_only(folder: Path) -> None:
    page = client(folder).get("/")
    assert "http://" not in page.text and "https://" not in page.text and "innerHTML" not in page.text
    assert (
        "default-src 'none'" in page.headers["Content-Security-Policy"] and "script-src 'sha256-" in page.headers["Content-Security-Policy"]
    )


def test_a_decision_is_on_the_disk_when_it_is_answered_and_there_after_a_reload(folder: Path) -> None:
    page = client(folder)
    row = page.get("/rows", params={"reviewer": "ann"}).json()[3]
    assert row["decision"] is None
    said = page.post("/decisions", json={"id": row["id"], "verdict": "edit", "chain": "a better chain", "note": "n", "reviewer": "ann"})
    assert said.json() == {"verdict": "edit", "chain": "a better chain", "note": "n"}
    assert read_decisions(folder / "reviews")["ann"][row["id"]].hash == hash_of(row["chain"])
    assert client(folder).get("/rows", params={"reviewer": "ann"}).json()[3]["decision"]["chain"] == "a better chain"
    assert client(folder).get("/rows", params={"reviewer": "bob"}).json()[3]["decision"] is None


def test_pictures_are_named_by_row(folder: Path) -> None:
    page = client(folder)
    rows = page.get("/rows", params={"reviewer": "ann"}).json()
    defect = next(number for number, row in enumerate(rows) if row["anomalous"])
    normal = next(number for number, row in enumerate(rows) if not row["anomalous"])
    for kind in ("query", "overlay", "reference"):
        assert page.get(f"/pictures/{defect}/{kind}").content.startswith(b"\x89PNG")
    missing = [f"{normal}/overlay", "9999/query", "0/mask", "-1/query", "0/..%2f..%2fetc%2fpasswd"]
    assert {page.get(f"/pictures/{path}").status_code for path in missing} == {404}


@pytest.mark.parametrize(
    "body, message",
    [
        ({"id": "x", "verdict": "accept", "reviewer": "ann"}, "no row 'x'"),
        ({"verdict": "maybe", "reviewer": "ann"}, "a verdict is one of"),
        ({"verdict": "accept", "reviewer": "../ann"}, "a reviewer's name"),
    ],
)
def test_a_decision_that_does_not_fit_is_refused(folder: Path, body: dict[str, str], message: str) -> None:
    said = client(folder).post("/decisions", json={"id": json.loads((folder / "chains.jsonl").open().readline())["id"]} | body)
    assert said.status_code == 422 and message in said.json()["detail"] and not list(folder.glob("reviews/*"))


def test_another_sites_name_for_this_address_is_refused(folder: Path) -> None:
    assert client(folder, "evil.example").get("/rows", params={"reviewer": "ann"}).status_code == 400
    assert client(folder).post("/decisions", content="{}", headers={"Content-Type": "text/plain"}).status_code == 422


def test_without_a_build_there_is_nothing_to_review(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["expert-ad", "review", str(tmp_path)]) == 1
    assert "chains.jsonl: no such file. Run `iadr1 expert-ad build" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine")
def test_two_people_review_in_a_browser_with_the_keyboard(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "iadr1.cli", "expert-ad", "review", str(folder), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stdout
        url = server.stdout.readline().split(" at ")[1].split()[0]
        with chromium.chromium(tmp_path / "profile", f"{url}?reviewer=ann") as page:
            page.until("document.getElementById('place').textContent === '1 of 16'")
            page.until("[...document.images].length > 1 && [...document.images].every((image) => image.complete && image.naturalWidth > 0)")
            page.press("a")
            page.until("document.getElementById('done').textContent === '1 decided'")
            page.press("r")
            page.until("document.getElementById('done').textContent === '2 decided'")
            page.press("e")
            page.until("!document.getElementById('chain').readOnly")
            page.value("document.getElementById('chain').select()")
            page.write("across the part, <b>nothing</b> stands out. so it is good.")
            page.press("Enter", control=True)
            page.until("document.getElementById('done').textContent === '3 decided'")
            page.press("ArrowLeft")
            page.until("document.getElementById('decision').textContent === 'decided: edit'")
            page.screenshot(tmp_path / "review.png")
            page.call("Page.reload")
            page.until("document.getElementById('place').textContent === '4 of 16'")  # the first open one
            page.call("Page.navigate", url=f"{url}?reviewer=bob")
            page.until("document.getElementById('reviewer').value === 'bob' && document.getElementById('done').textContent === '0 decided'")
            page.press("a")
            page.until("document.getElementById('done').textContent === '1 decided'")
    finally:
        server.terminate()
        server.wait(30)
    rows = read_rows(folder)
    found = read_decisions(folder / "reviews")
    assert [found["ann"][row["id"]].verdict for row in rows[:3]] == ["accept", "reject", "edit"]
    assert found["ann"][rows[2]["id"]].chain == "across the part, <b>nothing</b> stands out. so it is good."
    assert agreement(found)["cohen"]["ann and bob"]["shared"] == 1
