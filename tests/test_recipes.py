"""The recipes of SC-GRPO: docs/sc_grpo.md tells them as they are, batches are balanced, and the global batch holds on any number of devices."""

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from iadr1.errors import ParamsError
from iadr1.params import load
from iadr1.recipes import RECIPES, balanced_order, recipe_named
from iadr1.samples import Sample
from iadr1.training import split_batch

ROOT = Path(__file__).parent.parent
DOC = (ROOT / "docs" / "sc_grpo.md").read_text(encoding="utf-8")
NAMES = ("paper", "released", "robust")


def table_rows(columns: int) -> list[list[str]]:
    """The cells of each row with a setting in the tables of so many columns."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in DOC.splitlines() if line.startswith("|")]
    return [
        row for row in rows if len(row) == columns and any(cell.startswith("`") for cell in row[:-3]) and row[0] not in ("symbol", "what")
    ]


def values(cells: list[str]) -> list[Any]:
    return [yaml.safe_load(cell) for cell in cells]


SETTINGS = {row[2].strip("`"): values(row[3:]) for row in table_rows(7)}
OWN = {row[1].strip("`"): values(row[2:]) for row in table_rows(5)}


def test_the_tables_are_read() -> None:
    assert len(SETTINGS) >= 20 and OWN.keys() == {"global_batch_size", "balanced", "resamples"} and set(NAMES) == RECIPES.keys()


def test_the_table_tells_what_trl_has_by_default() -> None:
    from trl import GRPOConfig

    found = {field.name: field.default for field in fields(GRPOConfig)}
    assert {name: row[-1] for name, row in SETTINGS.items()} == {name: found[name] for name in SETTINGS}
    assert MISSING not in [found[name] for name in SETTINGS]


@pytest.mark.parametrize("at, name", list(enumerate(NAMES)))
def test_the_table_tells_what_a_recipe_sets(at: int, name: str) -> None:
    trainer = RECIPES[name].trainer
    in_force = {setting: trainer.get(setting, row[-1]) for setting, row in SETTINGS.items()}
    # A schedule that a recipe leaves to TRL has the value of the last column.
    assert {setting: row[at] for setting, row in SETTINGS.items()} == in_force
    assert trainer.keys() <= SETTINGS.keys(), "every setting of a recipe is a row"
    assert {key: row[at] for key, row in OWN.items()} == {key: getattr(RECIPES[name], key) for key in OWN}


def test_the_document_names_what_the_shipped_parameters_replace() -> None:
    told = load(ROOT / "params.yaml").sc_grpo
    (sentence,) = re.findall(r"`params.yaml` replaces: ([^(]*)", DOC)
    trainer = RECIPES[told.recipe].trainer
    assert set(re.findall(r"`(\w+)`", sentence)) == {
        name for name in told.trainer if name in SETTINGS and told.trainer[name] != trainer.get(name)
    }


def test_what_the_parameters_say_replaces_a_part_of_a_recipe() -> None:
    assert recipe_named("robust", balanced=None, resamples=None) == RECIPES["robust"]
    assert recipe_named("robust", resamples=0).resamples == 0 and recipe_named("robust", resamples=0).balanced
    with pytest.raises(ParamsError, match=r"sc_grpo.recipe: 'papper' is not a recipe of SC-GRPO; choose one of paper, released, robust"):
        recipe_named("papper")


def rows_of(flags: list[bool]) -> list[Sample]:
    return [Sample(f"made/{at}", "made", "plate", ("x.png",), flag) for at, flag in enumerate(flags)]


@given(flags=st.lists(st.booleans(), min_size=1, max_size=60), seed=st.integers(0, 99), width=st.integers(1, 12))
def test_neighbours_in_a_balanced_order_have_the_datas_share_of_anomalous_rows(flags: list[bool], seed: int, width: int) -> None:
    order = balanced_order(rows_of(flags), seed)
    assert sorted(order, key=lambda row: row.id) == sorted(rows_of(flags), key=lambda row: row.id)
    share = sum(flags) / len(flags)
    for start in range(len(order) - width + 1):
        assert abs(sum(row.anomalous for row in order[start : start + width]) - width * share) < 2


def test_a_balanced_order_depends_on_the_seed_alone() -> None:
    rows = rows_of([True, False] * 20)
    assert balanced_order(rows, 1) == balanced_order(rows, 1) != balanced_order(rows, 2)


@pytest.mark.parametrize(
    "global_batch, processes, most, expected",
    [
        (24, 1, 24, (24, 1)),
        (24, 1, 8, (8, 3)),
        (24, 3, 8, (8, 1)),
        (24, 3, 5, (4, 2)),  # the most rows up to five that fit
        (24, 24, 8, (1, 1)),
        (96, 2, 96, (48, 1)),
    ],
)
def test_the_global_batch_is_shared_by_any_number_of_processes(
    global_batch: int, processes: int, most: int, expected: tuple[int, int]
) -> None:
    assert split_batch(global_batch, processes=processes, most=most) == expected


@given(share=st.integers(1, 200), processes=st.integers(1, 64), most=st.integers(1, 300))
def test_micro_batch_times_accumulation_times_processes_is_the_global_batch(share: int, processes: int, most: int) -> None:
    micro, accumulation = split_batch(share * processes, processes=processes, most=most)
    assert micro * accumulation * processes == share * processes and micro <= most


@pytest.mark.parametrize("global_batch, processes", [(24, 5), (2, 4), (0, 1)])
def test_a_global_batch_that_cannot_be_shared_is_refused(global_batch: int, processes: int) -> None:
    message = rf"global_batch_size: {global_batch} rows cannot be shared equally by {processes} processes"
    with pytest.raises(ParamsError, match=message):
        split_batch(global_batch, processes=processes, most=8)
