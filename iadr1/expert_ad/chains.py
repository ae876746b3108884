"""Short chains of thought without a paid teacher, written from what the mask of an image measures.

A chain has the five steps of the paper (observation, comparison, identification, evaluation, decision). Both classes begin with the same
openings and part at one word, «a» or «no»: a model that decodes greedily weighs the two classes against each other, not their wordings.
"""

import random
from collections.abc import Iterator, Sequence

from iadr1.errors import DatasetError
from iadr1.masks import SHAPES, SIZES, TONES, Region
from iadr1.samples import Sample

OPENINGS = (
    "on the {category},",
    "looking over the {category},",
    "scanning the {category},",
    "viewing the {category},",
    "across the whole part,",
    "on the visible surface,",
    "from edge to edge,",
    "with a close look,",
)
SEEN = (
    "a {size} {tone} {shape} mark stands out {place}.",
    "a {size} {shape} region is {tone} {place}.",
    "a {size} {tone} {shape} spot lies {place}.",
    "a {size} {shape} area looks {tone} {place}.",
    "a {size} {tone} {shape} trace appears {place}.",
    "a {size} {tone} {shape} patch shows {place}.",
)
SEEN_SEVERAL = (
    "a group of {size} {tone} marks stands out {place}.",
    "a set of {size} {tone} regions lies {place}.",
    "a few {size} {tone} spots appear {place}.",
    "a number of {size} {tone} areas lie {place}.",
)
UNSEEN = (
    "no mark or region stands out from the rest.",
    "no region differs from its surroundings.",
    "no spot of unexpected tone or form lies there.",
    "no area looks out of place or broken.",
    "no trace breaks the surface or the outline.",
    "no patch of another tone shows.",
)
COMPARISON = {
    True: (
        "a good part does not show this.",
        "a normal part has nothing like it.",
        "an intact part looks different there.",
        "a good part does not have it.",
        "the usual product does not have it.",
        "an intact part is clear there.",
        "it breaks the usual look.",
    ),
    False: (
        "a good part looks like this.",
        "a normal part looks the same.",
        "the surface is as expected.",
        "this is the usual look of the product.",
        "the outline is that of an intact part.",
        "nothing breaks the usual look.",
        "each part is in its place.",
    ),
}
IDENTIFICATION = {
    True: (
        "form and tone point to {type}.",
        "this look fits {type}.",
        "the kind of defect is {type}.",
        "it is best named {type}.",
        "the evidence suggests {type}.",
        "this is typical of {type}.",
        "it can be recognised as {type}.",
    ),
    False: (
        "there is no sign of a defect.",
        "no kind of defect can be named.",
        "the evidence suggests an intact part.",
        "there is no defect to name.",
        "this is typical of an intact part.",
        "no defect can be recognised.",
        "the look fits a part without defect.",
    ),
}
EVALUATION = {
    True: (
        "it goes beyond normal variation.",
        "light or texture do not explain it.",
        "it lowers the quality of the product.",
        "it is not part of the design.",
        "such a change matters.",
        "it is outside the standard.",
        "it is more than a change of light.",
    ),
    False: (
        "what varies is normal variation.",
        "light and texture explain what varies.",
        "the quality of the product is not affected.",
        "all that is visible belongs to the design.",
        "no change matters here.",
        "the state is within the standard.",
        "there is no more than a change of light.",
    ),
}
DECISION = {
    True: (
        "so the part is defective.",
        "therefore it has a defect.",
        "the part should be rejected.",
        "so this is an anomaly.",
        "the inspection finds a defect.",
        "the part is not acceptable.",
    ),
    False: (
        "so the part is good.",
        "therefore it has no defect.",
        "the part should be accepted.",
        "so this is a normal part.",
        "the inspection finds no defect.",
        "the part is acceptable.",
    ),
}


def chain(sample: Sample, region: Region | None) -> str:
    """A chain of thought for `sample`, the same at every call; raises DatasetError for a defect without location, type or region."""
    return " ".join(steps(sample, region))


def steps(sample: Sample, region: Region | None) -> list[str]:
    """The sentences of the five steps of the chain for `sample`; raises as `chain` does."""
    category = sample.category.replace("_", " ").lower()
    if not sample.anomalous:
        return _normal_steps(random.Random(sample.id), category)
    if region is None or not sample.location or not sample.type:
        raise DatasetError(
            f"{sample.id}: a chain needs the location, the type and the mask of a defect; found location {sample.location}, "
            f"type {sample.type}, mask {sample.mask}. Use the sample for sc_grpo, which needs none of them."
        )
    return _defect_steps(random.Random(sample.id), category, region, location=sample.location, type_=sample.type)


def corpus(n: int, *, seed: int, categories: Sequence[str], types: Sequence[str], locations: Sequence[str]) -> Iterator[str]:
    """`n` example chains over all wordings, half of them of defects: what a tokenizer is trained on."""
    chooser = random.Random(seed)
    for index in range(n):
        category = chooser.choice(categories).replace("_", " ").lower()
        if index % 2:
            yield " ".join(_normal_steps(chooser, category))
        else:
            region = _any_region(chooser)
            yield " ".join(_defect_steps(chooser, category, region, location=chooser.choice(locations), type_=chooser.choice(types)))


def _normal_steps(chooser: random.Random, category: str) -> list[str]:
    return [step.format(category=category) for step in _steps(chooser, UNSEEN, anomalous=False)]


def _defect_steps(chooser: random.Random, category: str, region: Region, *, location: str, type_: str) -> list[str]:
    words = {
        "category": category,
        "size": region.size,
        "tone": region.tone,
        "shape": region.shape,
        "place": _place(location),
        "type": type_,
    }
    return [step.format(**words) for step in _steps(chooser, SEEN_SEVERAL if region.several else SEEN, anomalous=True)]


def _place(location: str) -> str:
    return location if location.startswith("everywhere") else f"at the {location}"


def _steps(chooser: random.Random, seen: Sequence[str], *, anomalous: bool) -> list[str]:
    slots = (OPENINGS, seen, COMPARISON[anomalous], IDENTIFICATION[anomalous], EVALUATION[anomalous], DECISION[anomalous])
    opening, observation, *others = (chooser.choice(slot) for slot in slots)
    return [f"{opening} {observation}", *others]


def _any_region(chooser: random.Random) -> Region:
    size, shape = chooser.choice(SIZES)[1], chooser.choice(SHAPES)[1]
    return Region(size=size, tone=chooser.choice(TONES), shape=shape, several=chooser.random() < 0.2)
