"""The rewards as other trainers call them; for TRL see `iadr1.rewards.trl_rewards`.

verl:    custom_reward_function.path=.../iadr1/adapters.py custom_reward_function.name=verl_score
EasyR1:  worker.reward.reward_function=.../iadr1/adapters.py:easyr1_scores
The ground truth is a solution text ("<location>…</location><type>…</type><answer>Yes</answer>") or a sample as JSON.
"""

from collections.abc import Sequence
from typing import Any

from iadr1.rewards import Score, sample_of_solution, score
from iadr1.samples import Sample


def verl_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    preset: str = "paper",
    weights: dict[str, float] | None = None,
    grid: int = 3,
    **_: Any,
) -> dict[str, float]:
    """verl's `compute_score` of one completion: the total as "score", and each reward for the log."""
    return _numbers(score(solution_str, sample_of(ground_truth), preset=preset, weights=weights, grid=grid), total="score")


def easyr1_scores(
    reward_inputs: Sequence[dict[str, Any]], *, preset: str = "paper", weights: dict[str, float] | None = None, grid: int = 3, **_: Any
) -> list[dict[str, float]]:
    """EasyR1's batch `compute_score`: the total as "overall", and each reward for the log."""
    found = [score(row["response"], sample_of(row["ground_truth"]), preset=preset, weights=weights, grid=grid) for row in reward_inputs]
    return [_numbers(one, total="overall") for one in found]


def sample_of(ground_truth: str) -> Sample:
    """The sample that a ground truth holds: JSON of a sample, or a solution text."""
    if ground_truth.lstrip().startswith("{"):
        return Sample.from_json(ground_truth, source="ground truth")
    return sample_of_solution(ground_truth, id="ground truth")


def _numbers(found: Score, *, total: str) -> dict[str, float]:
    # These trainers average every key over the batch and know no None: a reward that cannot be scored counts as nothing, as in Eq. 9.
    return {total: found.total} | {name: getattr(found, name) or 0.0 for name in ("consistency", "accuracy", "location", "type")}
