"""The paper's tables as data: every grid is valid, a row runs only what its change reaches, and a claim is judged by its interval."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from iadr1.errors import ParamsError
from iadr1.orderings import difference, judgement, t_interval, together
from iadr1.params import parse, read
from iadr1.report import Prediction, write_predictions
from tasks._experiment import overlaid
from tasks._grid import Grid, Row, default_run, grid_named, row_name, row_run, stages_of
from tasks._table import graphs, markdown, placed, shown, write

ROOT = Path(__file__).parent.parent
TREE = read(ROOT / "params.yaml")
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
TABLES = sorted(path.stem for path in (ROOT / "experiments/tables").glob("*.yaml"))
DATASETS = {"mvtec", "visa", "mpdd", "dagm", "dtd", "sdd"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a composition reads, as the working folder."""
    for file in (ROOT / "params.yaml", ROOT / "dvc.yaml", *(ROOT / "experiments").rglob("*.yaml")):
        if file.name == "dvc.yaml" and file.parent != ROOT:
            continue
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- the grids ---------------------------------------------------------------------------------------------------------------------------


def test_every_table_and_figure_of_ablations_has_a_grid() -> None:
    assert set(TABLES) == {"2", "3", "5", "6", "9", "10", "11", "fig3", "fig7", "fig8"}


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_a_grid_is_a_change_of_parameters_that_loads(project: Path, table: str) -> None:
    grid = grid_named(table)
    assert len(set(grid.labels)) == len(grid.rows) >= 2 and grid.claims
    for row in grid.rows:
        parse(overlaid(TREE, row.change, source=row.label), source=f"{table}: {row.label}")
        for values in row.paper.values():
            told = [value for setting in values.values() for value in (setting.values() if isinstance(setting, dict) else [setting])]
            assert values.keys() <= {"0-shot", "1-shot"} and all(40 < value < 100 for value in told)
            assert all(setting.keys() <= DATASETS for setting in values.values() if isinstance(setting, dict))


def test_rows_of_several_tables_with_one_change_are_one_run(project: Path) -> None:
    runs: dict[str, set[str]] = {}
    for table in TABLES:
        found = placed(table, [0], None)
        for row in found.grid.rows:
            run = found.rows[row.label, 0]
            told = {key: value for key, value in run.tree.items() if key != "experiment"}
            runs.setdefault(str(run.pipeline), set()).add(json.dumps(told, sort_keys=True))
    assert all(len(contents) == 1 for contents in runs.values())
    assert len(runs) == 1 + 18  # the default run, and every change of the tables once


@pytest.mark.parametrize(
    "change, model, stages",
    [
        ({}, "sc_grpo", []),
        ({"sc_grpo": {"rewards": {"accuracy": 1.0}}}, "sc_grpo", ["sc_grpo", "evaluate"]),
        ({"sc_grpo": {"rewards": {"accuracy": 1.0}}}, "pa_sft", []),
        ({"sc_grpo": {"start": "base"}}, "sc_grpo", ["sc_grpo", "evaluate"]),
        ({"pa_sft": {"lora": {"r": 8}}}, "pa_sft", ["pa_sft", "evaluate"]),
        ({"pa_sft": {"lora": {"r": 8}}}, "sc_grpo", ["pa_sft", "sc_grpo", "evaluate"]),
        ({"pa_sft": {"backbone": "models/x"}}, "base", ["evaluate"]),
        ({"prepare": {"chains": "answers_only"}}, "pa_sft", ["prepare", "validate", "pa_sft", "evaluate"]),
        ({"prepare": {"grid": 2}}, "sc_grpo", ["prepare", "validate", "pa_sft", "sc_grpo", "evaluate"]),
        ({"evaluate": {"max_new_tokens": 8}}, "sc_grpo", ["evaluate"]),
        ({"register": {"name": "x"}}, "sc_grpo", []),
    ],
)
def test_a_row_runs_the_stages_that_its_change_reaches_and_its_model_needs(change: dict, model: str, stages: list) -> None:
    reached = stages_of(GRAPH, [f"{section}.{key}" for section, keys in change.items() for key in keys], model=model)
    assert [name for name in reached if "evaluate" in reached] == stages


def test_a_row_finds_what_it_shares_where_the_default_run_of_its_seed_has_made_it(project: Path) -> None:
    row = Row(label="x", model="sc_grpo", change={"sc_grpo": {"rewards": {"accuracy": 1.0}}})
    run = row_run(row, default_run(1, profile=None), source="x")
    home, stages = run.tree["experiment"], yaml.safe_load(run.pipeline.read_text())["stages"]
    assert run.pipeline == Path("experiments/rows/seed-1/sc_grpo-rewards-accuracy-1--sc_grpo/dvc.yaml")
    assert {stage["wdir"] for stage in stages.values()} == {"../../../.."} and list(stages) == ["sc_grpo", "evaluate"]
    assert (home["prepared"], home["pa_sft"], home["fetched"]) == ("data/seed-1/prepared", "models/seed-1/pa_sft", "data/seed-1/raw")
    assert home["models"] == "models/rows/seed-1/sc_grpo-rewards-accuracy-1--sc_grpo"
    assert {"models/seed-1/pa_sft", "reports/seed-1/validation.json"} <= set(stages["sc_grpo"]["deps"])
    assert "${experiment.models}/sc_grpo" in stages["evaluate"]["deps"] and "models/seed-1/pa_sft" not in stages["evaluate"]["deps"]
    parse(read(run.pipeline.with_name("params.yaml")), source="the row")


def test_a_profile_changes_the_default_run_and_every_row(project: Path) -> None:
    found = placed("3", [0, 5], "smoke")
    assert [run.name for run in found.defaults.values()] == ["smoke", "smoke-seed-5"]
    assert {run.tree["sc_grpo"]["max_steps"] for run in found.rows.values()} == {2}
    assert [graph["title"] for graph in graphs(found)] == [
        "seed 0, default run",
        "seed 0, Original",
        "seed 5, default run",
        "seed 5, Original",
    ]


def test_the_names_of_rows_are_short_and_differ() -> None:
    changes = [{"sc_grpo": {"rewards": {name: weight}}} for name in ("accuracy", "type") for weight in (1.0, 0.5, 0.25)]
    changes += [{"sc_grpo": {"rewards": {f"{'x' * 90}{number}": 1.0}}} for number in (1, 2)]
    names = [row_name(overlaid(TREE, change, source="x"), ["sc_grpo.rewards"]) for change in changes]
    assert len(set(names)) == len(changes) and all(re.fullmatch(r"[a-z0-9_.-]{1,80}", name) for name in names)


@pytest.mark.parametrize(
    "text, said",
    [
        ("title: x\nrows: []\nclaims: []\nclaim: 1", r"experiments/tables/x\.yaml: claim: "),
        ("title: x\nrows: [{label: A, model: sft}]\nclaims: []", r"rows\.0\.model: "),
        (
            "title: x\nrows: [{label: Base, model: base}]\nclaims: [{says: s, best: Bse}]",
            r"names 'Bse', which is no row; did you mean Base\?",
        ),
        ("title: x\nrows: [{label: A, model: base}]\nclaims: [{says: s, order: [A]}]", "compares nothing"),
    ],
)
def test_a_table_that_cannot_be_is_refused_by_name(project: Path, text: str, said: str) -> None:
    (project / "experiments/tables/x.yaml").write_text(text)
    with pytest.raises(ParamsError, match=said):
        grid_named("x")


def test_a_table_that_is_not_there_is_told(project: Path) -> None:
    with pytest.raises(ParamsError, match=r"experiments/tables/fig33\.yaml: no such table; did you mean fig3\?"):
        grid_named("fig33")


# --- what becomes of a claim ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interval, said",
    [
        ([0.1, 2.0], "holds"),
        ([-2.0, -0.1], "does not hold"),
        ([-1.0, 1.0], "cannot be told"),
        ([0.0, 1.0], "cannot be told"),
        (None, "cannot be told"),
    ],
)
def test_a_claim_is_judged_by_its_interval(interval: list | None, said: str) -> None:
    assert judgement(interval) == said


@pytest.mark.parametrize(
    "parts, said",
    [
        (["holds", "holds"], "holds"),
        (["holds", "cannot be told"], "cannot be told"),
        (["holds", "does not hold"], "does not hold"),
        (["cannot be told", "does not hold"], "does not hold"),
        ([], "cannot be told"),
    ],
)
def test_a_claim_of_several_parts_holds_when_each_one_does(parts: list, said: str) -> None:
    assert together(parts) == said


def test_students_interval_is_that_of_the_tables() -> None:
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx([2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5], abs=1e-4)
    assert t_interval([1.0]) is None


def answers(right: dict[int, int], *, model: str = "sc_grpo", dataset: str = "mvtec") -> list[Prediction]:
    """Of each seed 20 normal and 20 anomalous images; so many of the anomalous ones are found."""
    return [
        Prediction(
            f"{dataset}/{number}", dataset, "plate", model, number < 20, "<think>x</think><answer>No</answer>"
            if number >= found else "<think>x</think><location>left</location><type>hole</type><answer>Yes</answer>", seed=seed,
        )
        for seed, found in right.items()
        for number in range(40)
    ]  # fmt: skip


def test_a_difference_is_paired_by_seed_and_image() -> None:
    found = difference(answers({0: 10, 1: 11, 2: 9}), answers({0: 16, 1: 17, 2: 15}), labels=("A", "B"))
    assert (
        found is not None and found.by_seed == {0: 15.0, 1: 15.0, 2: 15.0} and found.seeds_ci == [15.0, 15.0] and found.judgement == "holds"
    )
    assert found.images_ci is not None and 0 < found.images_ci[0] < 15 < found.images_ci[1]


def test_one_seed_is_judged_by_its_images_and_a_seed_that_one_row_lacks_is_left_out() -> None:
    found = difference(answers({0: 10, 1: 3}), answers({0: 16}), labels=("A", "B"))
    assert found is not None and list(found.by_seed) == [0] and found.seeds_ci is None and found.judgement == "holds"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=4))
def test_turning_a_claim_round_turns_its_judgement_round(found: list[tuple[int, int]]) -> None:
    first, second = (answers({seed: pair[side] for seed, pair in enumerate(found)}) for side in (0, 1))
    there, back = difference(first, second, labels=("A", "B")), difference(second, first, labels=("B", "A"))
    assert there is not None and back is not None
    assert there.mean == pytest.approx(-back.mean)
    turned = {"holds": "does not hold", "does not hold": "holds", "cannot be told": "cannot be told"}
    assert len(found) == 1 or back.judgement == turned[there.judgement]


# --- the page ------------------------------------------------------------------------------------------------------------------------------


def predicted(found: object, right: dict[str, int]) -> None:
    """Predictions of every row and seed; `right` of the 20 defects are found, one more with every seed."""
    for (label, seed), run in found.rows.items():  # type: ignore[attr-defined]
        (row,) = [row for row in found.grid.rows if row.label == label]  # type: ignore[attr-defined]
        for dataset in run.tree["evaluate"]["datasets"]:
            file = Path(run.tree["experiment"]["data"], "predictions", f"{dataset}-0.jsonl")
            others = [] if not file.is_file() else file.read_text().splitlines()
            write_predictions(file, answers({seed: right[label] + seed}, model=row.model, dataset=dataset))
            file.write_text("".join(f"{line}\n" for line in [*others, *file.read_text().splitlines()]))


def test_the_page_shows_ours_beside_the_papers_and_what_becomes_of_each_claim(project: Path) -> None:
    found = placed("3", [0, 1, 2], None)
    predicted(found, {"Fine-tuned": 12, "Original": 15, "SC-GRPO": 15})
    assert write(found, shown(found)) and not write(found, shown(found))
    page = Path("reports/tables/3.md").read_text()
    told = json.loads(Path("reports/tables/3.json").read_text())["settings"]["0-shot"]
    assert told["rows"]["Original"]["mean"] == pytest.approx(90.0) and told["rows"]["Original"]["sd"] == pytest.approx(2.5)
    assert [claim["judgement"] for claim in told["claims"]] == ["cannot be told", "holds", "does not hold"]
    assert re.search(r"\| Original +\| sc_grpo +\| 90\.0 ± 2\.5 +\| \S+ to \S+ +\| 0\.0 +\| 78\.1 +\| 70\.0 +\| 78\.5", page)
    assert "| Original < SC-GRPO" in page and "+5.7 +7.4 +7.6" in page and "**does not hold**" in page


def test_the_papers_own_figures_contradict_some_of_its_claims(project: Path) -> None:
    found = placed("5", [0], None)
    predicted(found, dict.fromkeys(found.grid.labels, 10))
    claims = {claim["says"]: claim for claim in shown(found)["settings"]["0-shot"]["claims"]}
    (part,) = claims["the consistency reward contributes beside the type reward"]["parts"]
    assert part["paper"] == {"Qwen2.5-VL-3B": -0.18}


def test_a_grid_is_a_table_of_rows_and_claims_and_nothing_else() -> None:
    assert set(Grid.model_fields) == {"title", "rows", "claims"}


def test_a_run_that_has_failed_has_no_figures_and_the_page_says_why(project: Path) -> None:
    found = placed("3", [0, 1], None)
    predicted(found, {"Fine-tuned": 12, "Original": 15, "SC-GRPO": 15})
    gone = str(found.rows["Original", 0].pipeline)
    page = markdown(shown(placed("3", [0, 1], None, {gone: "sc_grpo: the training has collapsed"})))
    assert "No figures: seed 0, Original: sc_grpo: the training has collapsed" in page
    assert re.search(r"\| Original < SC-GRPO +\| \+0\.0 +\| \+0\.0 +\| – ", page)
    page = markdown(shown(placed("3", [0], None, {gone: "sc_grpo: the training has collapsed"})))
    assert re.search(r"\| Original +\| sc_grpo +\| – +\| – +\| – ", page) and "| Original < SC-GRPO" not in page
