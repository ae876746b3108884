"""Nothing that is read, paid or reported changes unnoticed: the golden files, and the page that is generated from the code."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _module(path):
    spec = importlib.util.spec_from_file_location(path.stem + "_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOLDEN = _module(ROOT / "tests" / "golden" / "make.py").expected()


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.endswith(".jsonl")])
def test_every_row_is_as_expected(name):
    found = [json.loads(line) for line in GOLDEN[name].splitlines()]
    assert found == [json.loads(line) for line in (ROOT / "tests" / "golden" / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["report.json", "comparison.json"])
def test_every_figure_is_as_expected(name):
    expected = json.loads((ROOT / "tests" / "golden" / name).read_text(encoding="utf-8"))
    assert _near(json.loads(GOLDEN[name]), expected)


def _near(found, expected):
    """Equal, with room for the last digits of a float on another machine."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(_near(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(_near, found, expected))
    return found == pytest.approx(expected) if isinstance(expected, float) else found == expected


@pytest.mark.parametrize("page", ["rewards", "backbones", "planning"])
def test_the_pages_made_from_the_code_are_up_to_date(page):
    assert _module(ROOT / "docs" / f"make_{page}.py").document() == (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
