"""Steps 2, 3 and 5 of Expert-AD: a teacher describes and distils every pair, gates judge the chains, sound rows take the two patterns.

What a run produces depends on the pairs and the replies alone, not on their order or on how often the run was stopped.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

from iadr1.datasets import with_references
from iadr1.errors import ParamsError
from iadr1.expert_ad.gates import NAMES, Finding, Judged, findings
from iadr1.expert_ad.pairs import Pair, coarsened
from iadr1.expert_ad.teachers import Comparison, Distilled, Record, Reply, Request, Teacher, parse
from iadr1.masks import Region
from iadr1.params import suggestion
from iadr1.samples import Sample
from iadr1.splits import category_of

CHAINED = frozenset({"pa_sft", "validation"})  # the parts whose rows carry a chain of thought
ATTEMPTS = 2  # a reply that cannot be read is asked for once more
SHOWN = 3  # reasons of each gate that the report quotes
Types = Literal["fine", "coarse"]
Mapper = Callable[[Callable[[Pair], "Draft"], Sequence[Pair]], Iterable["Draft"]]
Decide = Callable[[str, str], str | None]  # (id, chain) -> the chain that people let through, None where they reject it


@dataclass(frozen=True, slots=True)
class Draft:
    """What a teacher made of a pair; `fault` says why there is no chain, `replies` are what it cost."""

    pair: Pair
    comparison: Comparison | None = None
    distilled: Distilled | None = None
    fault: str | None = None
    replies: tuple[Reply, ...] = ()

    @property
    def row(self) -> Sample:
        """The query with the chain as its reasoning, if there is one, and the fine type that the teacher was to name."""
        query, distilled = self.pair.query, self.distilled
        if distilled is None:
            return query
        named = distilled.type if self.pair.finer else ""
        return replace(query, reasoning=distilled.chain, type=(named or query.type) if query.anomalous else None)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A draft after gates and review: `row` holds the chain as it would be learned, `accepted` whether it will be."""

    part: str
    draft: Draft
    row: Sample
    findings: tuple[Finding, ...]
    rejected_by_people: bool
    accepted: bool

    def to_dict(self) -> dict[str, Any]:
        """All that a reviewer needs, as JSON can hold it."""
        query = self.draft.pair.query
        return {
            "id": query.id, "part": self.part, "category": query.category, "image": self.draft.pair.image, "mask": query.mask,
            "reference": self.draft.pair.reference, "anomalous": query.anomalous, "location": query.location,
            "annotated_type": query.type, "type": self.row.type,
            "comparison": self.draft.comparison and asdict(self.draft.comparison),
            "chain": self.draft.row.reasoning, "reviewed_chain": None if self.row == self.draft.row else self.row.reasoning,
            "fault": self.draft.fault, "findings": [asdict(finding) for finding in self.findings],
            "rejected_by_people": self.rejected_by_people, "accepted": self.accepted,
        }  # fmt: skip


@dataclass(frozen=True)
class Built:
    """The rows of each part, and how every row that needed a chain was judged."""

    parts: dict[str, list[Sample]]
    judgements: list[Judgement] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """Counts and rates: rows, faults, what each gate found with examples, and tokens."""
        drafts = [judgement.draft for judgement in self.judgements]
        replies = [reply for draft in drafts for reply in draft.replies]
        return {
            "rows": {part: _counts(rows) for part, rows in self.parts.items()},
            "described": len(drafts),
            "accepted": sum(judgement.accepted for judgement in self.judgements),
            "faults": dict(sorted(Counter(draft.fault for draft in drafts if draft.fault).items())),
            "rejected_by_people": sum(judgement.rejected_by_people for judgement in self.judgements),
            "gates": {name: self._gate(name) for name in NAMES},
            "replies": len(replies),
            "tokens_in": sum(reply.tokens_in for reply in replies),
            "tokens_out": sum(reply.tokens_out for reply in replies),
        }

    def _gate(self, name: str) -> dict[str, Any]:
        reasons = [
            f"{judgement.row.id} {finding.reason}"
            for judgement in self.judgements
            for finding in judgement.findings
            if finding.gate == name
        ]
        judged = sum(judgement.draft.distilled is not None for judgement in self.judgements)
        return {"found": len(reasons), "rate": round(len(reasons) / max(1, judged), 4), "examples": reasons[:SHOWN]}


def pairs_of(samples: Sequence[Sample], regions: Mapping[str, Region], *, types: Types = "fine") -> list[Pair]:
    """Each sample beside normal images of its product, its type as it is or coarse; they come from the same part, so that parts stay apart."""
    normal: dict[str, list[Sample]] = {}
    finer = types == "fine"
    samples = samples if finer else coarsened(samples)
    for sample in samples:
        if not sample.anomalous:
            normal.setdefault(category_of(sample), []).append(sample)
    return [Pair(with_references(sample, normal.get(category_of(sample), [])), regions.get(sample.id), finer) for sample in samples]


def drafted(pair: Pair, teacher: Teacher) -> Draft:
    """The two passes of a teacher over a pair."""
    if teacher.needs_reference and pair.reference is None:
        return Draft(pair, fault="no normal image of its product to compare it with")
    replies: list[Reply] = []
    comparison = _asked(Comparison, teacher, Request("compare", pair), replies)
    if comparison is None:
        return Draft(pair, fault=_fault("comparison", replies), replies=tuple(replies))
    distilled = _asked(Distilled, teacher, Request("distil", pair, comparison), replies)
    return Draft(pair, comparison, distilled, None if distilled else _fault("chain", replies), tuple(replies))


def _asked(record: type[Record], teacher: Teacher, request: Request, replies: list[Reply]) -> Record | None:
    for attempt in range(1, ATTEMPTS + 1):
        reply = teacher(replace(request, attempt=attempt))
        replies.append(reply)
        found = parse(record, reply.text)
        if found is not None or reply.refused:
            return found
    return None


def _fault(what: str, replies: Sequence[Reply]) -> str:
    return f"the teacher refused the {what}" if replies[-1].refused else f"the {what} cannot be read"


def build(
    parts: Mapping[str, Sequence[Sample]], regions: Mapping[str, Region], *, teacher: Teacher, described: frozenset[str],
    rejecting: frozenset[str], rows: Mapping[str, int], anomalous_share: Mapping[str, float], grid: int, types: Types = "fine",
    decide: Decide = lambda _, chain: chain, mapper: Mapper = map,
) -> Built:  # fmt: skip
    """The rows of each part; those in `described` hold only chains that people and the gates in `rejecting` let through.

    Rows of a part that is not in CHAINED take no chain: where such a part is described, its defects get the fine type that the teacher
    names. `mapper` may work in parallel but keeps the order. Where rows fall out, the part keeps its share of defects.
    """
    for name in sorted(rejecting - set(NAMES)):
        raise ParamsError(f"prepare.reject: {name} is not a gate; {suggestion(name, NAMES)}")
    pairs = {part: pairs_of(samples, regions, types=types) for part, samples in parts.items()}
    asked = {part: [pair for pair in pairs[part] if describable(pair, part, described)] for part in parts}
    drafts = iter(mapper(partial(drafted, teacher=teacher), [pair for part in parts for pair in asked[part]]))
    built = Built({})
    for part in parts:
        judgements = judged(part, [next(drafts) for _ in asked[part]], rejecting=rejecting, decide=decide, grid=grid)
        refused = {judgement.row.id for judgement in judgements if not judgement.accepted}
        taught = {judgement.row.id: judgement.row for judgement in judgements}
        kept = [taught.get(pair.query.id, pair.query) for pair in pairs[part] if pair.query.id not in refused]
        kept = kept if part in CHAINED else [replace(row, reasoning=None) for row in kept]
        built.judgements.extend(judgements)
        built.parts[part] = _balanced(kept, len(pairs[part]), rows=rows[part], anomalous_share=anomalous_share[part])
    return built


def describable(pair: Pair, part: str, described: frozenset[str]) -> bool:
    """Whether a teacher has something to say that the part needs."""
    query = pair.query
    if part not in described:
        return False
    return part in CHAINED or bool(query.anomalous and query.mask and query.type and query.location)


def judged(part: str, drafts: Sequence[Draft], *, rejecting: frozenset[str], decide: Decide, grid: int) -> list[Judgement]:
    """What people and gates say of the drafts of a part; a chain that people changed is judged as changed."""
    texts = [draft.row.reasoning and decide(draft.row.id, draft.row.reasoning) for draft in drafts]
    rows = [replace(draft.row, reasoning=text or draft.row.reasoning) for draft, text in zip(drafts, texts, strict=True)]
    with_chain = [at for at, draft in enumerate(drafts) if draft.distilled]
    found = dict(zip(with_chain, findings([Judged(rows[at], drafts[at].pair.query, grid) for at in with_chain]), strict=True))
    return [
        Judgement(
            part, draft, rows[at], tuple(found.get(at, ())), rejected_by_people=draft.distilled is not None and texts[at] is None,
            accepted=texts[at] is not None and not any(finding.gate in rejecting for finding in found[at]),
        )
        for at, draft in enumerate(drafts)
    ]  # fmt: skip


def _balanced(accepted: Sequence[Sample], drawn: int, *, rows: int, anomalous_share: float) -> list[Sample]:
    """The accepted rows, cut to `rows`; where some fell out, the class that has too many for the share is cut as well."""
    if len(accepted) == drawn <= rows:
        return list(accepted)
    defects = sum(sample.anomalous for sample in accepted)
    normal = len(accepted) - defects
    wanted = min(
        float(rows),
        defects / anomalous_share if anomalous_share > 0 else float("inf"),
        normal / (1 - anomalous_share) if anomalous_share < 1 else float("inf"),
    )
    left = {True: round(wanted * anomalous_share), False: round(wanted) - round(wanted * anomalous_share)}
    kept = []
    for sample in accepted:
        if left[sample.anomalous] > 0:
            left[sample.anomalous] -= 1
            kept.append(sample)
    return kept


def _counts(samples: Sequence[Sample]) -> dict[str, int]:
    anomalous = sum(sample.anomalous for sample in samples)
    return {"normal": len(samples) - anomalous, "anomalous": anomalous}
