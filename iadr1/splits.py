"""Training data divided into parts that share no physical sample, each balanced between normal and defective."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from iadr1.samples import Sample

Kind = str  # "normal", or defective: "annotated" with location and type, else "bare"


def divided(
    samples: Iterable[Sample], *, rows: Mapping[str, int], annotated_only: frozenset[str], anomalous_share: Mapping[str, float], seed: int
) -> dict[str, list[Sample]]:
    """Up to rows[part] samples for each part, anomalous_share[part] of them defective; one in `annotated_only` takes only defects that have a mask and a type.

    Each category is divided on its own, whole physical samples at a time, in proportion to `rows`. A part then draws its defects evenly
    from the categories, and normal images from the same categories in the same proportion: a category says nothing about the label.
    """
    pools: dict[str, list[Sample]] = {part: [] for part in rows}
    for category in _by(samples, category_of).values():
        for part, members in _assigned(category, rows=rows, annotated_only=annotated_only, seed=seed).items():
            pools[part] += members
    return {
        part: _drawn(
            [sample for sample in pool if part not in annotated_only or _kind(sample) != "bare"],
            rows=rows[part], anomalous_share=anomalous_share[part], seed=seed,
        )
        for part, pool in pools.items()
    }  # fmt: skip


def thinned(samples: Sequence[Sample], share: float) -> list[Sample]:
    """A share of the samples, alike in every class and category; those of a smaller share are among those of a larger one."""
    kept: set[str] = set()
    for label in (True, False):
        members = [sample for sample in samples if sample.anomalous is label]
        ranked = _in_proportion(members, Counter(map(category_of, members)))
        kept |= {sample.id for sample in ranked[: round(len(members) * share)]}
    return [sample for sample in samples if sample.id in kept]


def category_of(sample: Sample) -> str:
    """A category's name among all data sets."""
    return f"{sample.dataset}/{sample.category}"


def physical_of(sample: Sample) -> str:
    """What was photographed: the named physical sample, or the image itself where none is named."""
    return sample.physical or sample.id


def _assigned(samples: Sequence[Sample], *, rows: Mapping[str, int], annotated_only: frozenset[str], seed: int) -> dict[str, list[Sample]]:
    """The samples of one category by part: each physical sample goes to the part that lacks most of what it holds, the largest first."""
    goals = _goals(Counter(map(_kind, samples)), rows=rows, annotated_only=annotated_only)
    held = {part: Counter[Kind]() for part in rows}
    parts: dict[str, list[Sample]] = {part: [] for part in rows}
    groups = list(_by(samples, physical_of).values())
    random.Random(seed).shuffle(groups)
    for group in sorted(groups, key=len, reverse=True):
        content = Counter(map(_kind, group))
        lacks = {part: sum(_lack(goals[part][kind], held[part][kind]) * count for kind, count in content.items()) for part in rows}
        part = max(lacks, key=lambda name: lacks[name])
        parts[part] += group
        held[part] += content
    return parts


def _goals(available: Counter[Kind], *, rows: Mapping[str, int], annotated_only: frozenset[str]) -> dict[str, dict[Kind, float]]:
    goals: dict[str, dict[Kind, float]] = {part: {} for part in rows}
    for kind in ("normal", "annotated", "bare"):
        takers = {part: count for part, count in rows.items() if kind != "bare" or part not in annotated_only}
        for part in rows:
            goals[part][kind] = available[kind] * takers.get(part, 0) / max(1, sum(takers.values()))
    return goals


def _lack(goal: float, held: int) -> float:
    """The missing share of a goal: 1 with nothing held, negative when it is exceeded; a part without a goal wants none."""
    return (goal - held) / goal if goal > 0 else -1.0


def _drawn(pool: Sequence[Sample], *, rows: int, anomalous_share: float, seed: int) -> list[Sample]:
    chooser = random.Random(seed)
    shuffled = chooser.sample(list(pool), len(pool))
    defects, normal = ([sample for sample in shuffled if sample.anomalous is label] for label in (True, False))
    wanted = min(float(rows), _most(defects, anomalous_share), _most(normal, 1 - anomalous_share))
    chosen = _in_proportion(defects, dict.fromkeys(map(category_of, defects), 1))[: round(wanted * anomalous_share)]
    chosen += _in_proportion(normal, Counter(map(category_of, chosen)))[: round(wanted) - len(chosen)]
    return chooser.sample(chosen, len(chosen))


def _most(available: Sequence[Sample], share: float) -> float:
    """How many rows can be had when `available` makes up this share of them."""
    return len(available) / share if share > 0 else float("inf")


def _in_proportion(samples: Sequence[Sample], weights: Mapping[str, int]) -> list[Sample]:
    """The samples so ordered that every beginning holds the categories in proportion to their weights; those without one come last."""
    seen = Counter[str]()
    ranked: list[tuple[float, Sample]] = []
    for sample in samples:
        category = category_of(sample)
        seen[category] += 1
        ranked.append((seen[category] / weights[category] if weights.get(category) else float("inf"), sample))
    return [sample for _, sample in sorted(ranked, key=lambda pair: pair[0])]


def _kind(sample: Sample) -> Kind:
    if not sample.anomalous:
        return "normal"
    return "annotated" if sample.mask and sample.type else "bare"


def _by(samples: Iterable[Sample], name: Callable[[Sample], str]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[name(sample)].append(sample)
    return groups
