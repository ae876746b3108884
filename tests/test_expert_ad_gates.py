"""Gates on chains refuse what they should, with a reason, and let honest chains through."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iadr1 import picture_book, products
from iadr1.expert_ad.chains import chain, corpus
from iadr1.expert_ad.gates import GATES, NAMES, NEAR_DUPLICATE, Judged, findings, near_duplicates
from iadr1.masks import Region
from iadr1.samples import Sample

NORMAL = Sample("n", "made", "bolt", ("n.png",), False)
DEFECT = Sample("d", "made", "bolt", ("d.png",), True, "top left", "scratch")
LINE = Region("small", "darker", "long")
END = " It goes beyond normal variation and lowers the quality, so the part is defective."


def found(text: str, truth: Sample = DEFECT, *, fine: str | None = None, shots: int = 0, grid: int = 3) -> dict[str, str]:
    row = replace(truth, reasoning=text, type=fine or truth.type)
    return {finding.gate: finding.reason for finding in findings([Judged(row, truth, grid, shots)])[0]}


@pytest.mark.parametrize(
    "text",
    [
        "Due to prior guidance regarding expected locations, the top left was looked at.",
        "The highlighted region on the top left shows a thin line.",
        "The mask shows a line there.",
        "As indicated by the annotation, there is a scratch.",
        "The given anomaly location is the top left.",
        "According to the ground truth there is a scratch.",
        "The magenta contour surrounds a thin line.",
        "Knowing the provided coarse type, this is a scratch.",
        "The labeled defect is easy to see on the part.",
    ],
)
def test_hints_that_leak_are_found(text: str) -> None:
    assert "hint_leak" in found(text + END)


@pytest.mark.parametrize(
    "text",
    [
        "Compared to the reference image, a line crosses the surface.",
        "Based on the provided normal image, the surface should be even.",
        "The first image shows an even surface, the second image a line.",
        "A line is here that is absent in the other image.",
        "It differs from the template.",
        "Both images show a bolt, but one has a line.",
    ],
)
def test_a_reference_is_no_part_of_a_chain_about_one_image(text: str) -> None:
    assert "reference_mention" in found(text + END)
    assert "reference_mention" not in found(text + END, shots=1)


@pytest.mark.parametrize(
    "text, truth, finds",
    [
        ("The surface is even. There is no defect.", DEFECT, True),
        ("The surface is even. There is no defect.", NORMAL, False),
        ("A line crosses the surface. This is a scratch, so the part is defective.", NORMAL, True),
        ("A line crosses the surface. This is a scratch, so the part is defective.", DEFECT, False),
        ("A line crosses the surface, as on every part of this design.", NORMAL, False),
    ],
)
def test_a_chain_against_its_label_is_found(text: str, truth: Sample, finds: bool) -> None:
    assert ("label" in found(text, truth)) is finds


@pytest.mark.parametrize(
    "text, finds",
    [
        ("A thin line crosses the bottom right.", True),
        ("A thin line crosses the lower-right area.", True),
        ("A thin line lies in the center.", True),
        ("A thin line crosses the upper left.", False),
        ("A thin line lies on the left.", False),
        ("A thin line lies near the top.", False),
        ("The bottom right is intact, but a thin line crosses the top left.", False),
        ("The bottom right is intact. A thin line crosses the surface.", False),
        ("A thin line crosses the surface; the metal is left behind.", False),
        ("A thin line crosses the surface right next to the edge.", False),
        ("A thin line crosses the surface.", False),
    ],
)
def test_a_defect_in_another_place_is_found(text: str, finds: bool) -> None:
    assert ("location" in found(text + END)) is finds


@pytest.mark.parametrize("grid, location, text, finds", [
    (2, "bottom right", "a mark at the bottom right", False), (2, "bottom right", "a mark at the top", True),
    (5, "lower inner left", "a mark at the lower left", False), (5, "lower inner left", "a mark at the upper left", True),
    (3, "everywhere except top left", "a mark everywhere except the top left", False), (1, "everywhere", "a mark at the top", False),
    (3, "top left, top right", "a mark at the top right", False),
])  # fmt: skip
def test_places_are_compared_on_the_grid_of_the_row(grid: int, location: str, text: str, finds: bool) -> None:
    assert ("location" in found(f"{text}.{END}", replace(DEFECT, location=location), grid=grid)) is finds


@pytest.mark.parametrize(
    "text, fine, finds",
    [
        ("A dent deforms the surface.", None, True),
        ("A thin scratch crosses the surface.", None, False),
        ("A thin groove crosses the surface.", "score mark", False),
        ("A thin line crosses the surface.", "stain", True),
        ("A thin line crosses the surface.", "something", True),
        ("There is no dent and no hole. A thin line crosses the surface.", None, False),
        ("It could be a stain, but it is a scratch.", None, False),
        ("A thin line crosses the surface.", None, False),
    ],
)
def test_a_defect_of_another_type_is_found(text: str, fine: str | None, finds: bool) -> None:
    assert ("type" in found(text + END, fine=fine)) is finds


@pytest.mark.parametrize("words, finds", [(1, True), (11, True), (12, False), (150, False), (151, True)])
def test_chains_are_neither_short_nor_long(words: int, finds: bool) -> None:
    assert ("length" in found("part " * words)) is finds


@pytest.mark.parametrize(
    "text, finds",
    [
        ("在产品的左上角有一条划痕，表面的其他部分是正常的。因此该产品有缺陷。", True),
        ("Oben links auf dem Teil ist ein dünner Kratzer zu sehen, der dort nicht hingehört, deshalb ist das Teil fehlerhaft.", True),
        ("En la parte superior izquierda se ve una raya fina que no pertenece al producto, por lo tanto la pieza tiene un defecto.", True),
        ("Une fine rayure traverse la surface en haut à gauche, donc la pièce présente un défaut visible et doit être rejetée.", True),
        ("The surface of the façade has a thin line that is not there on a good part, so it is defective.", False),
        ("A thin line crosses the surface at the top left. It looks unlike the rest.", False),
    ],
)
def test_only_english_passes(text: str, finds: bool) -> None:
    assert ("language" in found(text)) is finds


@pytest.mark.parametrize(
    "text, what",
    [
        ("It was caused by careless handling.", "a cause"),
        ("It is due to a worn tool.", "a cause"),
        ("The line is 3.5 mm long.", "a measure"),
        ("I am 95% sure that it is a scratch.", "a probability"),
        ("The part will soon break.", "a consequence"),
        ("This is a safety hazard.", "a consequence"),
        ("The customer will complain.", "something beyond the part"),
        ("As an AI, I see a line.", "itself, a language model"),
        ("The line covers a third of the part and is darker than its surroundings.", None),
        ("It is not due to light.", None),
    ],
)
def test_claims_that_no_picture_supports_are_found(text: str, what: str | None) -> None:
    reason = found(text + END).get("claim")
    assert reason is None if what is None else (reason or "").startswith(f"claims {what}")


@pytest.mark.parametrize(
    "text", ["<answer>Yes</answer> it is.", "**Observation** a line.", "- a line\n- a scratch", "```json", '{"a": 1}', "1. A line"]
)
def test_markup_in_a_chain_is_found(text: str) -> None:
    assert "grammar" in found(text + END)


@pytest.mark.parametrize("product", ["label", "mask", "template", "mask_holder", "top_cap", "crack_gauge", "зубчатое_колесо"])
def test_a_product_may_be_called_what_a_leak_is_called(product: str) -> None:
    truth = replace(DEFECT, category=product)
    assert found(chain(truth, LINE), truth) == {}
    good = replace(NORMAL, category=product)
    assert all(found(chain(replace(good, id=str(number)), None), good) == {} for number in range(40))
    assert "hint_leak" in found(chain(truth, LINE) + " The given location is the top left.", truth)


def test_no_chain_of_the_offline_teacher_is_refused() -> None:
    places = [picture_book.position((row, column)) for row in range(3) for column in range(3)]
    sets = (products.TRAIN, products.MVTEC, products.VISA, products.MPDD, products.DAGM, products.DTD, products.SDD)
    names = [name for table in sets for name in table]
    for index, text in enumerate(corpus(600, seed=3, categories=names, types=["scratch"], locations=places)):
        place = next((place for place in sorted(places, key=len, reverse=True) if f"at the {place}." in text), "center")
        product = next((name for name in names if name.replace("_", " ").lower() in text), "bolt")
        truth = replace(NORMAL if index % 2 else replace(DEFECT, location=place), category=product)
        assert found(text, truth) == {}, text


def test_of_near_duplicates_the_first_is_let_through() -> None:
    one, other = chain(replace(DEFECT, id="1"), LINE), chain(replace(DEFECT, id="2"), LINE)
    assert list(near_duplicates([one, other, one, one.upper(), other + " yes"])) == [(2, 0), (3, 0), (4, 1)]
    rows = [Judged(replace(DEFECT, id=str(number), reasoning=one), DEFECT) for number in range(2)]
    assert [[finding.gate for finding in each] for each in findings(rows)] == [[], [NEAR_DUPLICATE]]


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=3, max_size=30).map(" ".join), max_size=12))
@settings(max_examples=60, deadline=None)
def test_near_duplicates_are_those_that_comparing_all_with_all_finds(texts: list[str]) -> None:
    from iadr1.expert_ad.gates import SAME, _alike, _shingles

    twins: set[int] = set()
    for index, text in enumerate(texts):
        if any(_alike(_shingles(text), _shingles(texts[other])) >= SAME for other in range(index) if other not in twins):
            twins.add(index)
    assert {index for index, _ in near_duplicates(texts)} == twins


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_no_text_breaks_a_gate(text: str) -> None:
    assert set(found(text)) <= set(NAMES) and set(found(text, NORMAL)) <= set(NAMES)


def test_no_gate_takes_long() -> None:
    import time

    texts = ["given a " * 20_000, "left " * 30_000, "1" * 60_000, "no " * 30_000, "due to a b " * 12_000, "<" * 60_000]
    judged = [Judged(replace(DEFECT, reasoning=text), DEFECT) for text in texts]
    started = time.process_time()
    for gate in GATES.values():
        for item in judged:
            gate(item)
    assert time.process_time() - started < 5
