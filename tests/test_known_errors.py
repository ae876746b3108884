"""Known errors of public benchmarks are told from their sound images, in their own layout only."""

import pytest

from iadr1.datasets import LAYOUTS
from iadr1.known_errors import _patterns, known_error


@pytest.mark.parametrize(
    "layout, sample_id, is_known",
    [
        ("ds_mvtec", "mvtec/pill/test/good/000", True),
        ("ds_mvtec", "any name/pill/test/good/021", True),
        ("ds_mvtec", "mvtec/pill/test/good/022", False),
        ("ds_mvtec", "mvtec/pill/train/good/000", False),
        ("ds_mvtec", "mvtec/pill/test/color/000", False),
        ("mvtec", "mvtec/pill/test/good/000", False),  # MVTec-AD itself has pills there
    ],
)
def test_the_metal_nuts_among_the_pills_are_known(layout: str, sample_id: str, is_known: bool) -> None:
    assert (known_error(layout, sample_id) is not None) is is_known


def test_every_error_names_a_layout_a_reason_and_its_source() -> None:
    assert _patterns().keys() <= LAYOUTS.keys()
    assert all("(" in reason for patterns in _patterns().values() for reason in patterns.values())
