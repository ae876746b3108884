"""What a reasoning concludes."""

import pytest

from iadr1.agreement import conclusion


@pytest.mark.parametrize(
    "text, concluded",
    [
        ("A thin line crosses the grain. This is a scratch.", True),
        ("The rim is cracked.", True),
        ("The dark line is a scratch, not a shadow.", True),
        ("There is no shadow, the dark line is a scratch.", True),
        ("The surface is not normal.", True),
        ("The left looks normal, but the right edge is dented.", True),
        ("No doubt there is a defect.", True),
        ("There are no scratches on the left. On the right there is a stain.", True),
        ("There is no defect.", False),
        ("No scratches, dents, or cracks.", False),
        ("There are no signs of irregularities such as scratches, dents or contamination.", False),
        ("The surface is free of visible defects.", False),
        ("A defect-free part.", False),
        ("Everything looks normal.", False),
        ("I don't see any damage", False),
        ("A dark spot was seen; however, it isn't a defect.", False),
        ("The part doesn’t show any flaw.", False),
        ("The grain is even.", None),
        ("I check whether there is a defect.", None),
        ("It differs from the normal grain.", None),
        ("", None),
        ("A scratch lies beside an area without any defect", None),  # both in one clause
    ],
)
def test_the_last_opinion_counts(text, concluded):
    assert conclusion(text) is concluded


def test_only_the_end_of_a_chain_is_read():
    assert conclusion("There is a defect. " + "The grain is even. " * 20) is None
