"""What a teacher that is a model is told, in both passes. A change here changes the hash of every request: old replies no longer answer."""

import json
from dataclasses import asdict

from iadr1.defect_types import taxonomy
from iadr1.expert_ad.pairs import Pair
from iadr1.expert_ad.teachers import Request

COMPARE = """You are an expert in the visual inspection of industrial products. The first image is a normal reference of the product: {category}. \
The second image is the query.{about} Compare them and reply with one JSON object and nothing else, all values plain English sentences:
{{"query": "what the query shows", "reference": "what the reference shows", "difference": "what differs between them, or that nothing does", \
"position": "where in the query", "appearance": "shape, size, colour and texture there"}}
State only what can be seen. Name no cause, no measure in units and no consequence."""
NORMAL = " The query is known to be without defect: what differs from the reference is normal variation."
DEFECT = (
    " The third image is the query again, with the defect outlined in magenta. It is at the {location} and of the coarse type {coarse}. "
    "Do not describe the outline."
)
DISTIL = """Below is a comparison of a query image of the product {category} with a normal reference of it. {verdict} Distil it to a short chain \
of thought that an inspector could think who sees the query image alone. Reply with one JSON object and nothing else:
{{"observation": "what is seen where", "comparison": "how it departs from, or agrees with, what such a product looks like", \
"identification": "what this points to", "evaluation": "why it matters, or does not", "decision": "the conclusion", "type": {type}}}
Each of the five steps is one plain English sentence of at most 25 words. Never mention a reference, another image, an outline, a hint, \
a given location or type, or anything that the query image does not show.{again}

{comparison}"""
AGAIN = " Your reply to this request could not be read as such a JSON object: reply with it alone."


def instruction(request: Request) -> str:
    """The text of a request; the images of the first pass go before it."""
    pair, again = request.pair, AGAIN if request.attempt > 1 else ""
    category = pair.query.category.replace("_", " ")
    if request.step == "compare":
        about = DEFECT.format(location=pair.query.location, coarse=pair.coarse or pair.query.type) if pair.query.anomalous else NORMAL
        return COMPARE.format(category=category, about=about) + again
    return DISTIL.format(
        category=category,
        verdict="The query is defective." if pair.query.anomalous else "The query is normal.",
        type=f'"{_type_asked(pair)}"',
        comparison=json.dumps(asdict(request.comparison), ensure_ascii=False, indent=1) if request.comparison else "",
        again=again,
    )


def _type_asked(pair: Pair) -> str:
    if not pair.query.anomalous:
        return ""
    return f"the fine type that fits best, one of: {', '.join(fine_types(pair.coarse))}" if pair.finer else pair.query.type or ""


def fine_types(coarse: str | None) -> list[str]:
    """The fine types of a coarse type, or all of them."""
    kinds = taxonomy().phrases.values()
    return list(dict.fromkeys(kind.fine for kind in kinds if coarse is None or kind.coarse == coarse))
