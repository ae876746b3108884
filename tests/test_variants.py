"""Variants of the training data: every row of the table in docs/data.md is a change of parameters that loads and prepares."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from iadr1 import defect_types
from iadr1.expert_ad.build import CHAINED, build, drafted, pairs_of
from iadr1.expert_ad.instructions import instruction
from iadr1.expert_ad.pairs import Pair
from iadr1.expert_ad.sources import annotated, training_samples
from iadr1.expert_ad.teachers import Comparison, OfflineTeacher, Request
from iadr1.locations import cells, mask_cells
from iadr1.masks import measured, read_mask
from iadr1.params import Params
from iadr1.prompts import target
from iadr1.rewards import score
from iadr1.samples import Sample, read_samples, write_samples
from iadr1.splits import divided
from iadr1.verdict import Verdict
from tasks._run import Workspace
from tasks.prepare import prepared
from tests import layouts
from tests.stages import ROOT, of_folder, workspace
from tests.test_expert_ad_build import CHAIN, COMPARED, Scripted, plate

PARTS = ("pa_sft", "sc_grpo", "validation")
SECTIONS = ("experiment", "fetch", "prepare", "validate", "sc_grpo", "evaluate")
ROW = re.compile(r"^\| (?P<name>[^|]+?) +\| `(?P<change>\{\}|[a-z_]+: \{.+\})` +\|", re.MULTILINE)
TABLE = {match["name"]: yaml.safe_load(match["change"]) for match in ROW.finditer((ROOT / "docs/data.md").read_text())}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bolts."""
    folder = tmp_path_factory.mktemp("images")
    layouts.parts(folder)
    return folder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def changed(images: Path, change: Mapping[str, Mapping[str, Any]]) -> tuple[Params, Workspace]:
    """The workspace of a folder of images with the changes of a variant."""
    params, _ = of_folder(images)
    sections = {name: getattr(params, name).model_dump() for name in SECTIONS}
    return workspace(**{name: {**keys, **change.get(name, {})} for name, keys in sections.items()})


def made(images: Path, **prepare: Any) -> dict[str, list[Sample]]:
    """The rows of each file after prepare, with some of its keys changed."""
    params, work = changed(images, {"prepare": prepare})
    prepared(params, work)
    return {name: read_samples(work.prepared / f"{name}.jsonl") for name in (*PARTS, "test/parts")}


@pytest.fixture(scope="module")
def default(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Sample]]:
    """What the shipped values make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("default"))
        return made(images)


# --- the table -------------------------------------------------------------------------------------------------------------------------


def test_the_table_names_every_row_that_the_paper_varies() -> None:
    changes = list(TABLE.values())
    assert all({"prepare": {"pa_sft_share": share / 5}} in changes for share in range(1, 6))
    assert all({"prepare": {"grid": grid}} in changes for grid in range(1, 6))
    for key, values in {"chains": ("expert_ad", "answers_only"), "types": ("fine", "coarse"), "shots": (1, 4)}.items():
        assert all({"prepare": {key: value}} in changes for value in values), key
    assert len(TABLE) == len(ROW.findall((ROOT / "docs/data.md").read_text())), "two rows have one name"


@pytest.mark.parametrize("name", TABLE)
def test_every_row_of_the_table_is_a_change_that_loads_and_prepares(images: Path, default: dict[str, list[Sample]], name: str) -> None:
    params, work = changed(images, TABLE[name])
    for section, keys in TABLE[name].items():
        assert {key: getattr(getattr(params, section), key) for key in keys} == keys
    counts = prepared(params, work)
    rows = {part: read_samples(work.prepared / f"{part}.jsonl") for part in PARTS}
    share = TABLE[name].get("prepare", {}).get("pa_sft_share", 1.0)
    assert len(rows["pa_sft"]) == 10 * share
    assert all(counts[f"{part}_normal"] + counts[f"{part}_anomalous"] == len(rows[part]) > 0 for part in PARTS)


def test_the_shipped_values_change_nothing_of_what_the_builder_makes(images: Path) -> None:
    params, work = of_folder(images)
    prepared(params, work)
    asked = {"pa_sft": 10, "sc_grpo": 6, "validation": 4}
    common = {"rows": asked, "anomalous_share": dict.fromkeys(asked, 0.5)}
    parts = divided(training_samples(params.prepare.train, images), annotated_only=CHAINED, seed=params.seed, **common)
    known, regions, _ = annotated([sample for samples in parts.values() for sample in samples], grid=3, multi_view=frozenset())
    parts = {part: [known[sample.id] for sample in samples] for part, samples in parts.items()}
    built = build(parts, regions, teacher=OfflineTeacher(), described=CHAINED, rejecting=frozenset(params.prepare.reject), grid=3, **common)
    for part, rows in built.parts.items():
        write_samples(Path("expected.jsonl"), rows)
        assert (work.prepared / f"{part}.jsonl").read_bytes() == Path("expected.jsonl").read_bytes()


# --- share -----------------------------------------------------------------------------------------------------------------------------


def test_a_smaller_share_is_among_a_larger_one_row_by_row_and_touches_pa_sft_alone(
    images: Path, default: dict[str, list[Sample]], capsys: pytest.CaptureFixture[str]
) -> None:
    larger = default
    for share, count in ((0.8, 8), (0.6, 6), (0.4, 4), (0.2, 2)):
        smaller = made(images, pa_sft_share=share)
        assert (
            f"prepare: pa_sft: {count} rows of 10 (prepare.pa_sft_share), {count // 2} normal and {count // 2} defective."
            in capsys.readouterr().out
        )
        assert smaller["pa_sft"] == [row for row in larger["pa_sft"] if row in smaller["pa_sft"]]
        assert {name: rows for name, rows in smaller.items() if name != "pa_sft"} == {
            name: rows for name, rows in default.items() if name != "pa_sft"
        }
        larger = smaller


# --- answers only ----------------------------------------------------------------------------------------------------------------------


def test_answers_only_are_the_same_rows_without_chains(images: Path, default: dict[str, list[Sample]]) -> None:
    rows = made(images, chains="answers_only")
    for part in PARTS:
        assert rows[part] == [replace(row, reasoning=None) for row in default[part]]
    assert rows["test/parts"] == default["test/parts"]


def test_an_answer_alone_is_learned_and_can_be_read(default: dict[str, list[Sample]]) -> None:
    for row in default["pa_sft"]:
        text = target(row, answers_only=True)
        assert text == f"<answer>{'Yes' if row.anomalous else 'No'}</answer>"
        assert Verdict.parse(text).anomalous is row.anomalous


# --- types -----------------------------------------------------------------------------------------------------------------------------


def test_coarse_types_are_in_every_training_row_and_its_chain_and_in_no_test(images: Path, tmp_path: Path) -> None:
    (tmp_path / "stained").mkdir()
    layouts.parts(tmp_path / "stained")
    for folder in ("train_defect", "train_defect_ground_truth"):
        (tmp_path / "stained/bolt" / folder / "scratch").rename(tmp_path / "stained/bolt" / folder / "rust")
    fine, coarse = made(tmp_path / "stained"), made(tmp_path / "stained", types="coarse")
    assert coarse["test/parts"] == fine["test/parts"]
    for part in PARTS:
        assert [row.id for row in coarse[part]] == [row.id for row in fine[part]]
        assert {row.type for row in fine[part] if row.anomalous} == {"rust"}
        assert {row.type for row in coarse[part] if row.anomalous} == {"contamination"}
    defects = [row for part in CHAINED for row in coarse[part] if row.anomalous]
    assert all("contamination" in str(row.reasoning) and "rust" not in str(row.reasoning) for row in defects)


def test_every_coarse_type_is_its_own_and_others_become_theirs(tmp_path: Path) -> None:
    names = {
        **{name: name for name in defect_types.taxonomy().coarse},
        "score mark": "scratch",
        "blister": "contamination",
        "nonsense": "nonsense",
    }
    samples = [Sample(f"a/b/train/x/{name}", "a", "b", ("x.png",), True, type=name) for name in names]
    normal = Sample("a/b/train/good/0", "a", "b", ("0.png",), False)
    pairs = pairs_of([*samples, normal], {}, types="coarse")
    assert [pair.query.type for pair in pairs] == [*names.values(), None]


def test_a_teacher_is_not_asked_for_a_fine_type_and_not_listened_to_when_it_names_one(tmp_path: Path) -> None:
    found = plate(tmp_path, "a", rows=slice(0, 10), columns=slice(0, 20))
    compared = Comparison(*["It is so."] * 5)
    fine, coarse = (instruction(Request("distil", Pair(found.query, found.region, finer), compared)) for finer in (True, False))
    assert '"type": "the fine type that fits best, one of: scratch, score mark"' in fine and '"type": "scratch"' in coarse
    reply = CHAIN.replace('"type": "scratch"', '"type": "score mark"')
    named = {finer: drafted(Pair(found.query, found.region, finer), Scripted(COMPARED, reply)).row.type for finer in (True, False)}
    assert named == {True: "score mark", False: "scratch"}


def test_coarse_types_and_fine_ones_for_sc_grpo_cannot_both_be_meant(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from iadr1.cli import main

    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["prepare"]["types"] = "coarse"
    Path("params.yaml").write_text(yaml.safe_dump(tree))
    assert main(["expert-ad", "build", "--images", str(images), "--into", "out", "--describe", "sc_grpo"]) == 1
    assert "--describe sc_grpo asks for fine types, but prepare.types is coarse. Leave one of them out." in capsys.readouterr().err


# --- grid ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", range(1, 6))
def test_a_grid_is_one_from_the_mask_to_the_reward(tmp_path: Path, grid: int) -> None:
    chooser = np.random.default_rng(grid)
    for number in range(12):
        top, left = chooser.integers(0, 70), chooser.integers(0, 150)
        height, width = chooser.integers(5, 30), chooser.integers(5, 50)
        pair = plate(tmp_path, str(number), rows=slice(top, top + height), columns=slice(left, left + width))
        found = measured(pair.query, grid=grid)
        assert found
        row = drafted(Pair(*found), OfflineTeacher()).row
        assert cells(str(row.location), grid) == mask_cells(read_mask(str(row.mask)), grid)
        assert str(row.location) in str(row.reasoning)
        told = score(target(row), row, grid=grid)
        assert (told.consistency, told.accuracy, told.location, told.type) == (1.0, 1.0, 1.0, 1.0)


# --- shots -----------------------------------------------------------------------------------------------------------------------------


def test_shots_leave_the_rows_as_they_are_and_rows_with_fewer_references_are_told(
    images: Path, default: dict[str, list[Sample]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert made(images, shots=1) == default
    assert "reference images" not in capsys.readouterr().out
    assert made(images, shots=3) == default
    # Of a part's normal images, a defective row has all for references, and a normal row all but itself.
    assert [line for line in capsys.readouterr().out.splitlines() if "reference images" in line] == [
        f"prepare: {part}: {fewer} rows have fewer than 3 reference images; they are shown what there is."
        for part, fewer in (("sc_grpo", "3 of 6"), ("validation", "4 of 4"))
    ]


@pytest.mark.parametrize("shots", [1, 2])
def test_references_are_normal_images_of_the_product_and_never_the_query(default: dict[str, list[Sample]], shots: int) -> None:
    for part in PARTS:
        for row in default[part]:
            assert row.images[-1] not in row.references and len(row.images) == 1
            assert all("/bolt/train/good/" in path for path in row.references[:shots])


# --- DVC -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_variant_that_was_prepared_before_comes_from_the_cache(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name in ("tasks", "iadr1"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)

    def ran(**prepare: Any) -> str:
        params, _ = changed(images, {"prepare": prepare})
        tree = yaml.safe_load((ROOT / "params.yaml").read_text())
        tree |= {name: getattr(params, name).model_dump() for name in SECTIONS}
        Path("params.yaml").write_text(yaml.safe_dump(tree))
        done = subprocess.run([sys.executable, "-m", "dvc", "repro", "prepare"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = ran()
    assert "Running stage 'prepare'" in first
    rows = Path("data/prepared/pa_sft.jsonl").read_bytes()
    changed_run = ran(pa_sft_share=0.4)
    assert "Running stage 'prepare'" in changed_run and "Running stage 'fetch'" not in changed_run
    assert len(read_samples(Path("data/prepared/pa_sft.jsonl"))) == 4
    again = ran()
    assert "Running stage" not in again and Path("data/prepared/pa_sft.jsonl").read_bytes() == rows
