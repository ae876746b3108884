"""Images of public benchmarks whose annotation is known to be wrong; they stand in `known_errors.yaml`, each with the reason and its source."""

import functools
import re
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("known_errors.yaml")


def known_error(layout: str, sample_id: str) -> str | None:
    """What is known to be wrong with a sample of a data set in this layout."""
    within = sample_id.partition("/")[2]
    return next((reason for pattern, reason in _patterns().get(layout, {}).items() if re.fullmatch(pattern, within)), None)


@functools.cache
def _patterns() -> dict[str, dict[str, str]]:
    known: dict[str, dict[str, str]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return known
