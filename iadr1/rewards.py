"""What a completion is worth: four pure functions of (verdict, sample), in three presets. Try `iadr1 score --help`.

`paper`    Equations 2 to 5 and 9 as written: consistency is the pattern of the ground truth; location and type count in full, after a right answer.
`released` what the authors' released code computes, from its own lenient reading of the text; for parity only.
`strict`   consistency is judged against the model's own answer, its reasoning and its evidence, and everything else needs a well-formed text.

A reward is None where it cannot be scored: location and type of a normal image, or of an anomalous one without that annotation.
One's own reward is a function of (verdict, sample, grid), named in the weights as "path/to/file.py:function".
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from iadr1.agreement import conclusion
from iadr1.defect_types import LONGEST_TEXT, is_stuffed, read_type, type_score
from iadr1.errors import DatasetError, ParamsError
from iadr1.locations import LONGEST_PLACE, Cells, cells
from iadr1.released import location_score as released_location_score
from iadr1.released import released_verdict
from iadr1.released import type_score as released_type_score
from iadr1.samples import Sample
from iadr1.verdict import Verdict, status_of, word_answer

Reward = Callable[[Verdict, Sample, int], float | None]

# A location of `strict` earns the overlap of what is said and what is true, from half on.
LEAST_OVERLAP = 0.5
# A reasoning that says its middle or last this many characters four times is a loop.
LOOP_LENGTH = 20

_WORD = re.compile(r"[^\W\d_]{2}")


class Score(NamedTuple):
    """The rewards of one completion; `total` is their weighted sum (Eq. 9), with None counting as nothing.

    `status` is that of `Verdict.parse` under every preset.
    """

    consistency: float | None
    accuracy: float | None
    location: float | None
    type: float | None
    total: float
    status: str


def consistency_reward(verdict: Verdict, sample: Sample, grid: int = 3) -> float:
    """Equation 2: the text has the pattern of the ground truth."""
    return float(verdict.pattern == ("anomalous" if sample.anomalous else "normal"))


def accuracy_reward(verdict: Verdict, sample: Sample, grid: int = 3) -> float:
    """Equation 3: the answer is the ground truth's."""
    return float(verdict.anomalous is sample.anomalous)


def location_reward(verdict: Verdict, sample: Sample, grid: int = 3) -> float | None:
    """Equation 4, after a right answer: the words name the same cells of the grid."""
    expected = _expected_cells(sample, grid)
    if expected is None:
        return None
    if not verdict.anomalous or verdict.location is None:
        return 0.0
    return float(cells(verdict.location, grid) == expected)


def type_reward(verdict: Verdict, sample: Sample, grid: int = 3) -> float | None:
    """Equation 5, after a right answer: how near the named type is."""
    if not sample.anomalous or not sample.type:
        return None
    if not verdict.anomalous or verdict.type is None:
        return 0.0
    return type_score(verdict.type, sample.type)


def strict_consistency(verdict: Verdict, sample: Sample, grid: int = 3) -> float:
    """The text is well formed for its own answer, its reasoning does not contradict it, and a defect is placed and named."""
    if verdict.status != "ok" or verdict.reasoning is None or not _is_reasoning(verdict.reasoning):
        return 0.0
    if conclusion(verdict.reasoning) is (not verdict.anomalous):
        return 0.0
    if verdict.anomalous and not (_is_evidence(verdict.location or "", verdict.type or "", sample, grid)):
        return 0.0
    return 1.0


def strict_accuracy(verdict: Verdict, sample: Sample, grid: int = 3) -> float:
    """The answer is right and the text is well formed."""
    return float(verdict.status == "ok" and verdict.anomalous is sample.anomalous)


def strict_location(verdict: Verdict, sample: Sample, grid: int = 3) -> float | None:
    """The overlap (intersection over union) of the cells said and the true ones, from half on, in a consistent and right verdict."""
    return _strict_together(verdict, sample, grid)[2]


def strict_type(verdict: Verdict, sample: Sample, grid: int = 3) -> float | None:
    """Equation 5 in a consistent and right verdict."""
    return _strict_together(verdict, sample, grid)[3]


def _strict_together(verdict: Verdict, sample: Sample, grid: int) -> "_Four":
    consistent = strict_consistency(verdict, sample, grid)
    accurate = strict_accuracy(verdict, sample, grid)
    if not sample.anomalous:
        return consistent, accurate, None, None
    paid = verdict.anomalous is True and consistent == 1.0
    expected = _expected_cells(sample, grid)
    place = None if expected is None else _overlap(verdict.location or "", expected, grid) if paid else 0.0
    kind = None if not sample.type else type_score(verdict.type or "", sample.type) if paid else 0.0
    return consistent, accurate, place, kind


def _overlap(said: str, expected: Cells, grid: int) -> float:
    """Intersection over union of the cells said and the true ones, 0 below a half."""
    found = cells(said, grid)
    share = len(found & expected) / len(found | expected) if found else 0.0
    return share if share >= LEAST_OVERLAP else 0.0


def released_location(verdict: Verdict, sample: Sample, grid: int = 3) -> float | None:
    """The released code's: equal cells of its 3 x 3 grid, whatever the answer; words that name no place are the center."""
    if not sample.anomalous or sample.location is None:
        return None
    return released_location_score(verdict.location, sample.location)


def released_type(verdict: Verdict, sample: Sample, grid: int = 3) -> float | None:
    """The released code's order of look-ups, whatever the answer."""
    if not sample.anomalous or sample.type is None:
        return None
    return released_type_score(verdict.type or "", sample.type)


@dataclass(frozen=True)
class Preset:
    """A way to read a completion and to reward it."""

    name: str
    read: Callable[[str], Verdict]
    rewards: Mapping[str, Reward]
    weights: Mapping[str, float]
    # The four at once, where they share work; always the same as one by one.
    together: Callable[[Verdict, Sample, int], "_Four"] | None = None


_Four = tuple[float | None, float | None, float | None, float | None]

REWARDS: dict[str, Reward] = {
    "consistency": consistency_reward,
    "accuracy": accuracy_reward,
    "location": location_reward,
    "type": type_reward,
}
_STRICT: dict[str, Reward] = {
    "consistency": strict_consistency,
    "accuracy": strict_accuracy,
    "location": strict_location,
    "type": strict_type,
}
_RELEASED: dict[str, Reward] = {**REWARDS, "location": released_location, "type": released_type}
_FULL = dict.fromkeys(REWARDS, 1.0)

PRESETS: dict[str, Preset] = {
    "paper": Preset("paper", Verdict.parse, REWARDS, _FULL),
    "released": Preset("released", released_verdict, _RELEASED, {**_FULL, "location": 0.5, "type": 0.5}),
    "strict": Preset("strict", Verdict.parse, _STRICT, _FULL, _strict_together),
}


def preset_named(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise ParamsError(f"{name!r} is not a preset of rewards; choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def score(completion: str, sample: Sample, *, preset: str = "paper", weights: Mapping[str, float] | None = None, grid: int = 3) -> Score:
    """The rewards of one completion."""
    return scores([completion], [sample], preset=preset, weights=weights, grid=grid)[0]


def scores(
    completions: Iterable[str],
    samples: Iterable[Sample],
    *,
    preset: str = "paper",
    weights: Mapping[str, float] | None = None,
    grid: int = 3,
) -> list[Score]:
    """The rewards of many completions, each with its sample; linear in their number."""
    chosen = preset_named(preset)
    weights = chosen.weights if weights is None else _known_weights(weights)
    w_consistency, w_accuracy, w_location, w_type = (weights.get(name, 0.0) for name in REWARDS)
    read, together = chosen.read, chosen.together or _one_by_one(chosen.rewards)
    found = []
    for completion, sample in zip(completions, samples, strict=True):
        verdict = read(completion)
        con, acc, loc, typ = together(verdict, sample, grid)
        total = w_consistency * (con or 0.0) + w_accuracy * (acc or 0.0) + w_location * (loc or 0.0) + w_type * (typ or 0.0)
        status = verdict.status if read is not released_verdict else status_of(completion)
        found.append(Score(con, acc, loc, typ, total, status))
    return found


def _known_weights(weights: Mapping[str, float]) -> Mapping[str, float]:
    unknown = [name for name in weights if name not in REWARDS]
    if unknown:
        raise ParamsError(f"{unknown[0]!r} is not a reward; choose from {', '.join(REWARDS)}. Rewards of your own are for `trl_rewards`.")
    return weights


def _one_by_one(rewards: Mapping[str, Reward]) -> Callable[[Verdict, Sample, int], _Four]:
    consistency, accuracy, location, kind = (rewards[name] for name in REWARDS)

    def together(verdict: Verdict, sample: Sample, grid: int) -> _Four:
        found = consistency(verdict, sample, grid), accuracy(verdict, sample, grid)
        return *found, location(verdict, sample, grid), kind(verdict, sample, grid)

    return together


def sample_of_solution(solution: str, *, id: str = "solution") -> Sample:
    """The annotation that a solution text states: "<location>…</location><type>…</type><answer>Yes</answer>", "<answer>No</answer>" or "Yes"/"No"."""
    found = _solution(solution)
    if found is None:
        raise DatasetError(f"{id}: a solution holds <answer>Yes</answer> or <answer>No</answer>; found {solution[:80]!r}.")
    return replace(found, id=id)


@lru_cache(maxsize=4096)
def _solution(text: str) -> Sample | None:
    verdict = Verdict.parse(text)
    anomalous = verdict.anomalous if verdict.anomalous is not None else word_answer(text)[0]
    if anomalous is None:
        return None
    return Sample("", "", "", (), anomalous, verdict.location if anomalous else None, verdict.type if anomalous else None)


def trl_rewards(preset: str, weights: Mapping[str, float], grid: int) -> tuple[list["TrlReward"], list[float]]:
    """The reward functions and weights for `trl.GRPOTrainer(reward_funcs=…)` and `GRPOConfig(reward_weights=…)`."""
    functions = [TrlReward(name, preset, grid) for name in weights]
    return functions, [float(weight) for weight in weights.values()]


class TrlReward:
    """One reward as TRL calls it; picklable, and logged under its own name."""

    def __init__(self, name: str, preset: str, grid: int = 3) -> None:
        self.__name__ = name.rpartition(":")[2]
        self.name, self.preset, self.grid = name, preset, grid
        reward_named(name, preset)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], sample: Sequence[str], **_: Any) -> list[float | None]:
        """The reward of each completion; `sample` is the dataset's column of samples as JSON."""
        reward, read = reward_named(self.name, self.preset), preset_named(self.preset).read
        return [
            reward(_read_once(read, completion_text(one)), _sample_of(row), self.grid) for one, row in zip(completions, sample, strict=True)
        ]

    def __repr__(self) -> str:
        return f"TrlReward({self.name!r}, {self.preset!r}, {self.grid})"


def reward_named(name: str, preset: str) -> Reward:
    """A preset's reward, or one's own by "path/to/file.py:function"."""
    known = preset_named(preset).rewards
    if name in known:
        return known[name]
    if ":" in name:
        return _own_reward(name)
    raise ParamsError(f"{name!r} is not a reward; choose from {', '.join(known)}, or name your own as path/to/file.py:function.")


@lru_cache(maxsize=64)
def _own_reward(name: str) -> Reward:
    import runpy
    from pathlib import Path

    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise ParamsError(f"{name!r}: no file {path}; give the path of a Python file from the project's root.")
    found = runpy.run_path(path).get(function)
    if not callable(found):
        raise ParamsError(f"{name!r}: {path} has no function {function}; define {function}(verdict, sample, grid).")
    reward: Reward = found
    return reward


def completion_text(completion: Any) -> str:
    """The text of a completion as TRL hands it over: a string, or messages whose content is a string or a list of parts."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"] if completion else ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


# Four functions see the same completion in turn, and a group of completions the same sample.
@lru_cache(maxsize=1024)
def _read_once(read: Callable[[str], Verdict], text: str) -> Verdict:
    return read(text)


@lru_cache(maxsize=4096)
def _sample_of(row: str) -> Sample:
    return Sample.from_json(row, source="the sample column of the training set")


def _expected_cells(sample: Sample, grid: int) -> Cells | None:
    return cells(sample.location, grid) if sample.anomalous and sample.location else None


def _is_evidence(location: str, kind: str, sample: Sample, grid: int) -> bool:
    # The caches below must not fill with runaways.
    short = (len(location) <= LONGEST_PLACE or location == sample.location) and (len(kind) <= LONGEST_TEXT or kind == sample.type)
    return short and _is_place(location, sample.location, grid) and _is_kind(kind, sample.type)


@lru_cache(maxsize=65536)
def _is_place(said: str, annotated: str | None, grid: int) -> bool:
    """Whether a location excludes something: it has no more cells than a row, or twice the annotated ones. Without an annotation anything is a place."""
    expected = cells(annotated, grid) if annotated else None
    if expected is None or said == annotated:
        return True
    found = cells(said, grid)
    return found is not None and len(found) <= max(grid, 2 * len(expected))


@lru_cache(maxsize=65536)
def _is_kind(said: str, annotated: str | None) -> bool:
    """Whether a type names a known kind (or nearly the annotated one), and not more kinds than the annotation does."""
    if not annotated or said == annotated:
        return True
    reading = read_type(said)
    if reading.refused or reading.group:
        return False
    if not reading.kinds:
        return type_score(said, annotated) > 0.0
    return not is_stuffed(reading, read_type(annotated))


def _is_reasoning(text: str) -> bool:
    """Whether a reasoning has a word and does not go round in circles."""
    middle = len(text) // 2
    parts = text[middle : middle + LOOP_LENGTH], text[-LOOP_LENGTH:]
    looped = len(text) > 4 * LOOP_LENGTH and max(text.count(parts[0]), text.count(parts[1])) >= 4
    return not looped and _WORD.search(text) is not None


def score_json(row_id: Any, found: Score) -> str:
    """One output row of `iadr1 score`."""
    return json.dumps({"id": row_id, **found._asdict()})
