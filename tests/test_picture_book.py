"""The picture book: general questions whose answers are right, and nothing about defects."""

import re
from dataclasses import replace

import numpy as np

from iadr1.picture_book import described, picture, position, questions
from iadr1.small_backbone import figure_map, page_labels

PAGES = [picture(np.random.default_rng(seed)) for seed in range(60)]


def test_no_page_speaks_of_products_or_defects() -> None:
    words = {
        word
        for page in PAGES
        for pair in questions(page, np.random.default_rng(0))
        for word in re.findall(r"[a-z]+", " ".join(pair).lower())
    }
    assert not words & {
        "defect",
        "defects",
        "anomaly",
        "anomalous",
        "damage",
        "scratch",
        "broken",
        "inspect",
        "good",
        "reject",
        "part",
        "product",
    }


def test_yes_and_no_are_equally_frequent_and_the_same_whether_or_not_a_figure_is_there() -> None:
    asked = [
        pair for seed, page in enumerate(PAGES * 10) for pair in questions(page, np.random.default_rng(seed)) if "yes or no" in pair[0]
    ]
    yes = sum(answer == "Yes." for _, answer in asked) / len(asked)
    assert 0.45 < yes < 0.55
    for seed, page in enumerate(PAGES):
        empty = replace(page, figures=(), covers=())
        with_figures, without = (
            [pair for pair in questions(shown, np.random.default_rng(seed)) if "yes or no" in pair[0]] for shown in (page, empty)
        )
        assert with_figures == without


def test_yes_or_no_says_nothing_about_small_figures() -> None:
    share = {some: [] for some in (True, False)}
    for seed, page in enumerate(PAGES * 10):
        share[bool(page.figures)] += [
            answer == "Yes." for question, answer in questions(page, np.random.default_rng(seed)) if "yes or no" in question
        ]
    assert abs(np.mean(share[True]) - np.mean(share[False])) < 0.06


def test_the_description_names_each_figure_where_it_is() -> None:
    page = next(page for page in PAGES if len(page.figures) == 1)
    assert f"At the {position(page.figures[0][1])} there is a" in described(page)


def test_the_map_of_a_page_shows_as_many_figures_as_its_count() -> None:
    for page in PAGES:
        names = {name for name, _ in page.figures}
        assert figure_map(page).any((0, 1)).sum() == len(names)
        assert page_labels(page)[3] == len(page.figures)
