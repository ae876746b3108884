"""What a folder holds is compared with what the public set of that layout is known to hold."""

from iadr1.datasets.totals import _known, differences
from iadr1.samples import Sample


def listing(category: str, **counts: int) -> list[Sample]:
    """Samples of one category: train_normal=…, test_defective=…"""
    return [
        Sample(f"x/{category}/{part.split('_')[0]}/kind/{number}", "x", category, ("a.png",), part.endswith("defective"))
        for part, count in counts.items()
        for number in range(count)
    ]


def plates(defective: int) -> list[Sample]:
    return listing("metal_plate", train_normal=54, test_normal=26, test_defective=defective)


def test_a_difference_is_told_with_both_numbers() -> None:
    assert "metal_plate: 70 test defective images, 71 in MPDD" in differences("mpdd", plates(70))


def test_missing_categories_are_named() -> None:
    (line,) = differences("mpdd", plates(71))
    assert line == "1 categories of MPDD; it has 6, without here: bracket_black, bracket_brown, bracket_white, connector, tubes"


def test_either_known_form_of_a_set_is_right() -> None:
    assert differences("sdd", listing("commutator", test_normal=347, test_defective=52)) == []
    assert differences("sdd", listing("commutator", test_normal=286, test_defective=54)) == []
    assert differences("sdd", listing("commutator", test_normal=286, test_defective=53)) == [
        "commutator: 53 test defective images, 54 in the re-arranged KolektorSDD"
    ]


def test_ones_own_products_have_no_known_totals() -> None:
    assert differences("mvtec", listing("my_part", train_normal=3)) == []
    assert differences("mvtec", listing("screw", train_normal=3)) == []
    assert differences("coco", listing("my_part", train_normal=3)) == []


def test_the_known_totals_add_up_to_the_published_ones() -> None:
    def totals(layout: str, form: int = 0) -> list[int | None]:
        columns = zip(*_known()[layout][form]["categories"].values(), strict=True)
        return [None if None in column else sum(column) for column in columns]

    assert totals("mvtec") == [3629, 0, 467, 1258]
    assert totals("visa") == [8659, 0, 962, 1200]
    assert totals("mpdd") == [888, 0, 176, 282]
    assert totals("dagm") == [None, None, 6996, 1054]
    assert totals("dtd") == [None, 0, 357, 947]
    assert totals("btad") == [1799, 0, 451, 290]
