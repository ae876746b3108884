"""Chains of thought are short, truthful, stable and of few words."""

import hashlib
import re
from itertools import islice

import numpy as np
import pytest

from iadr1.errors import DatasetError
from iadr1.expert_ad import chain, corpus
from iadr1.masks import SHAPES, SIZES, TONES, Region, contrast, region_of, visibility
from iadr1.samples import Sample

CATEGORIES = ["bolt", "metal_plate", "disc"]
TYPES = ["scratch", "missing parts", "presence of foreign objects"]
LOCATIONS = ["top left", "center", "bottom right"]
DARK_LINE = Region(size="small", tone="darker", shape="long")


def chains(n: int = 3000) -> list[str]:
    return list(corpus(n, seed=7, categories=CATEGORIES, types=TYPES, locations=LOCATIONS))


def sample(index: int = 0, *, anomalous: bool = True, **changes: str | None) -> Sample:
    known = {"location": "top left", "type": "scratch"} if anomalous else {}
    return Sample(
        id=f"made/bolt/train/x/{index}", dataset="made", category="bolt", images=("a.png",), anomalous=anomalous, **{**known, **changes}
    )


def square(*, at: tuple[int, int] = (10, 10), size: tuple[int, int] = (10, 10), grey: int = 50) -> tuple[np.ndarray, np.ndarray]:
    image, mask = np.full((100, 100, 3), 120, np.uint8), np.zeros((100, 100), bool)
    mask[at[0] : at[0] + size[0], at[1] : at[1] + size[1]] = True
    image[mask] = grey
    return image, mask


def region(image: np.ndarray, mask: np.ndarray) -> Region:
    return region_of(mask, contrast(image, mask))


def seen(image: np.ndarray, mask: np.ndarray) -> float:
    return visibility(mask, contrast(image, mask))


def test_every_chain_has_25_to_45_words() -> None:
    lengths = [len(text.split()) for text in chains()]
    assert min(lengths) >= 25
    assert max(lengths) <= 45


def test_the_vocabulary_is_small_and_lower_case() -> None:
    words = {word for text in chains() for word in re.findall(r"[a-zA-Z]+", text)}
    assert len(words) < 250
    assert all(word == word.lower() for word in words)


def test_both_classes_begin_alike_and_part_at_one_word() -> None:
    defects = {text.split(",")[0] for text in chains() if "defective" in text}
    normals = {text.split(",")[0] for text in chains() if "part is good" in text}
    assert defects == normals
    assert {text.split(", ")[1].split()[0] for text in chains()} == {"a", "no"}


def test_chains_vary() -> None:
    assert len(set(chains(2000))) > 1900


def test_the_chain_names_location_and_type_as_the_tags_do_and_nothing_else() -> None:
    for index in range(300):
        text = chain(sample(index, location="bottom right", type="missing parts"), DARK_LINE)
        assert text.count("bottom right") == 1 and "missing parts" in text
        assert not any(other in text for other in ("top", "left", "center", "scratch"))


def test_a_normal_chain_names_neither_location_nor_type() -> None:
    assert not any(word in chain(sample(index, anomalous=False), None) for index in range(300) for word in [*LOCATIONS, *TYPES])


def test_no_chain_speaks_of_a_reference_or_of_what_the_writer_was_told() -> None:
    assert not re.search(r"reference|compared|image|mask|hint|guidance|provided|given|ground truth|annotat|label", " ".join(chains()))


def test_a_chain_depends_on_the_sample_alone() -> None:
    assert chain(sample(3), DARK_LINE) == chain(sample(3), DARK_LINE)
    assert len({chain(sample(index), DARK_LINE) for index in range(50)}) > 40


def test_a_corpus_is_half_defects_and_stable() -> None:
    assert chains(50) == list(islice(corpus(100, seed=7, categories=CATEGORIES, types=TYPES, locations=LOCATIONS), 50))
    assert sum(", a " in text for text in chains(1000)) == 500


def hash_of(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def test_the_corpus_is_the_one_that_the_small_backbones_tokenizer_was_made_from() -> None:
    places = [*LOCATIONS, "everywhere except top left"]
    texts = list(corpus(4000, seed=20251121, categories=CATEGORIES, types=TYPES, locations=places))
    assert hash_of(texts) == "22b29854318fc59f70740096bba03630d837bd102af4421eba121f5d5d1bd14b"


def test_chains_are_the_ones_that_were_trained_on() -> None:
    places, texts = [*LOCATIONS, "everywhere except top left"], []
    for index in range(2000):
        defect = bool(index % 2)
        query = Sample(
            f"made/{CATEGORIES[index % 3]}/train/x/{index}", "made", CATEGORIES[index % 3], ("a.png",), defect,
            places[index % 4] if defect else None, TYPES[index % 3] if defect else None,
        )  # fmt: skip
        seen = Region(SIZES[index % 4][1], TONES[index // 4 % 4], SHAPES[index // 16 % 3][1], several=index % 5 == 0)
        texts.append(chain(query, seen if defect else None))
    assert hash_of(texts) == "6d4933dbfddf0308d2a16e0b32f5fb012d0642199a6d48aa7cee0c7b615438ba"


@pytest.mark.parametrize("changes", [{"location": None}, {"type": None}])
def test_a_defect_of_unknown_location_or_type_has_no_chain(changes: dict[str, None]) -> None:
    with pytest.raises(DatasetError, match="needs the location, the type and the mask"):
        chain(sample(**changes), DARK_LINE)


@pytest.mark.parametrize(
    "picture, expected",
    [
        (square(size=(5, 5)), Region("tiny", "darker", "round")),
        (square(size=(10, 10), grey=200), Region("small", "brighter", "round")),
        (square(size=(10, 30), grey=123), Region("medium", "faint", "oval")),
        (square(size=(3, 60)), Region("small", "darker", "long")),
        (square(size=(50, 60)), Region("large", "darker", "round")),
        (square(size=(1, 1)), Region("tiny", "darker", "round")),
    ],
)
def test_a_mask_is_put_in_words(picture: tuple[np.ndarray, np.ndarray], expected: Region) -> None:
    assert region(*picture) == expected


def test_several_pieces_are_told_from_one() -> None:
    image, mask = square()
    mask[70:80, 70:78] = True
    assert region(image, mask).several
    mask[70:80, 70:78] = False
    mask[90, 90] = True  # a crumb
    assert not region(image, mask).several


def test_a_diagonal_line_is_long_and_one_piece() -> None:
    assert region(np.zeros((200, 200, 3), np.uint8), np.eye(200, dtype=bool)) == Region("tiny", "faint", "long")


def test_visibility_grows_with_contrast_and_area() -> None:
    assert seen(*square(grey=20)) == pytest.approx(100 / 255 * 0.1)
    assert seen(*square(grey=119)) < seen(*square(grey=90)) < seen(*square(grey=20))
    assert seen(*square(size=(5, 5))) < seen(*square(size=(20, 20)))


def test_contrast_is_measured_against_a_ring_not_the_far_field() -> None:
    image, mask = square()
    image[60:, :] = 255
    assert contrast(image, mask).tolist() == [-70, -70, -70]
    assert contrast(image, np.ones((100, 100), bool)).tolist() == [0, 0, 0]


def test_a_defect_on_the_edge_of_a_part_is_compared_with_the_part() -> None:
    image, mask = square(at=(10, 10), grey=100)
    image[:9] = 0  # background, on one side of a defect that is darker than the part
    assert region(image, mask).tone == "darker"


def test_another_colour_of_the_same_brightness_is_not_faint() -> None:
    image, mask = square(grey=120)
    image[mask] = (150, 120, 90)
    assert region(image, mask).tone == "unexpected"
    assert seen(image, mask) > 0
