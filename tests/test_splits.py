"""Parts of the training data share no physical sample, and each is balanced."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iadr1.samples import Sample
from iadr1.splits import divided, physical_of, thinned

CHAINED = frozenset({"pa_sft"})


def made(category: str, *, normal: int, defects: int, annotated: bool = True, group: int = 1) -> list[Sample]:
    """Samples of a category; `group` of them in a row show one physical sample."""
    known = {"mask": "m.png", "type": "scratch"} if annotated else {}
    return [
        Sample(
            f"x/{category}/train/{label}/{number}", "x", category, ("i.png",), label == "bad",
            physical=f"x/{category}/{label if group == 1 else ''}{number // group}", **(known if label == "bad" else {}),
        )
        for label, count in (("good", normal), ("bad", defects))
        for number in range(count)
    ]  # fmt: skip


def parts(samples: list[Sample], *, share: float = 0.5, seed: int = 0, **rows: int) -> dict[str, list[Sample]]:
    return divided(samples, rows=rows, annotated_only=CHAINED, anomalous_share=dict.fromkeys(rows, share), seed=seed)


def labels(samples: list[Sample]) -> Counter[tuple[str, bool]]:
    return Counter((sample.category, sample.anomalous) for sample in samples)


@pytest.mark.parametrize("group", [1, 4, 10])
def test_no_physical_sample_is_in_two_parts(group: int) -> None:
    divided_ = parts(made("a", normal=100, defects=80, group=group), pa_sft=60, sc_grpo=30, validation=10)
    seen = [{physical_of(sample) for sample in samples} for samples in divided_.values()]
    assert all(seen)
    assert len(set().union(*seen)) == sum(map(len, seen))


def test_a_part_is_balanced_in_every_category() -> None:
    found = parts([*made("a", normal=300, defects=100), *made("b", normal=40, defects=200)], pa_sft=60, sc_grpo=40)
    assert labels(found["pa_sft"]) == {("a", True): 15, ("a", False): 15, ("b", True): 15, ("b", False): 15}
    assert labels(found["sc_grpo"]) == {("a", True): 10, ("a", False): 10, ("b", True): 10, ("b", False): 10}


@pytest.mark.parametrize(("share", "defects"), [(0.5, 20), (0.25, 10), (0.8, 32)])
def test_the_share_of_defects_is_the_one_asked_for(share: float, defects: int) -> None:
    assert sum(sample.anomalous for sample in parts(made("a", normal=200, defects=200), share=share, pa_sft=40)["pa_sft"]) == defects


def test_fewer_defects_than_asked_make_a_smaller_part_with_the_same_share() -> None:
    assert labels(parts(made("a", normal=200, defects=7), pa_sft=100)["pa_sft"]) == {("a", True): 7, ("a", False): 7}


def test_defects_without_mask_or_type_go_where_no_chain_is_needed() -> None:
    samples = [*made("a", normal=100, defects=100), *made("bare", normal=100, defects=40, annotated=False)]
    found = parts(samples, pa_sft=60, sc_grpo=60)
    assert not any(sample.category == "bare" for sample in found["pa_sft"])  # not even its normal images: they would tell the label
    assert labels(found["sc_grpo"])["bare", True] == labels(found["sc_grpo"])["bare", False] == 15


def test_few_large_groups_reach_every_part() -> None:
    found = parts(made("a", normal=300, defects=300, group=100), pa_sft=60, sc_grpo=30, validation=10)
    assert {part: len(samples) for part, samples in found.items()} == {"pa_sft": 60, "sc_grpo": 30, "validation": 10}


def test_the_seed_decides_and_nothing_else() -> None:
    samples = made("a", normal=100, defects=100)
    assert parts(samples, pa_sft=40) == parts(samples, pa_sft=40)
    assert parts(samples, pa_sft=40) != parts(samples, pa_sft=40, seed=1)


def test_no_rows_asked_gives_none() -> None:
    assert parts(made("a", normal=10, defects=10), pa_sft=10, validation=0)["validation"] == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.floats(0.01, 1), st.floats(0.01, 1))
@settings(max_examples=200, deadline=None)
def test_a_share_keeps_order_classes_and_categories_and_a_smaller_one_is_part_of_it(
    kinds: list[tuple[str, bool]], one: float, other: float
) -> None:
    samples = [Sample(f"x/{name}/train/y/{at}", "x", name, ("i.png",), label) for at, (name, label) in enumerate(kinds)]
    smaller, larger = (thinned(samples, share) for share in sorted((one, other)))
    assert smaller == [sample for sample in larger if sample in smaller]
    assert larger == [sample for sample in samples if sample in larger]
    for label in (True, False):
        of_label = sum(sample.anomalous is label for sample in samples)
        assert sum(sample.anomalous is label for sample in larger) == round(of_label * max(one, other))
    for kind, count in labels(samples).items():
        # What single images of other categories do not make up whole, a large category may.
        assert abs(labels(larger)[kind] - count * max(one, other)) < 3
    assert thinned(samples, 1.0) == samples


def test_each_part_has_a_share_of_its_own() -> None:
    samples = made("bolt", normal=300, defects=300)
    rows = {"pa_sft": 100, "sc_grpo": 50}
    found = divided(samples, rows=rows, annotated_only=CHAINED, anomalous_share={"pa_sft": 0.5, "sc_grpo": 0.58}, seed=0)
    assert {part: sum(sample.anomalous for sample in kept) for part, kept in found.items()} == {"pa_sft": 50, "sc_grpo": 29}
