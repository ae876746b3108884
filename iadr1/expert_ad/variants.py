"""Variants of the built rows that the paper compares: fewer of them (Table 6), answers without chains (Table 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from iadr1.expert_ad.build import CHAINED
from iadr1.params import Prepare
from iadr1.samples import Sample
from iadr1.splits import thinned


def varied(parts: Mapping[str, Sequence[Sample]], prepare: Prepare) -> dict[str, list[Sample]]:
    """The built rows as `prepare` wants them learned; a row that stays is the row of the full build, without its chain where answers are enough."""
    varied = {part: list(rows) for part, rows in parts.items()}
    varied["pa_sft"] = thinned(varied["pa_sft"], prepare.pa_sft_share)
    if prepare.chains == "answers_only":
        varied |= {part: [replace(row, reasoning=None) for row in varied[part]] for part in CHAINED}
    return varied
