"""What a model is asked and what it should answer: one builder for PA-SFT, SC-GRPO and evaluation, so that the three never differ."""

from typing import Any

from iadr1.errors import DatasetError
from iadr1.samples import Sample
from iadr1.verdict import Verdict

question = "Are there any defects in the query image?"
yes_or_no = " Please answer by yes or no."
# The paper's Table 8, for a policy that was never shown the form of an answer.
answer_form = (
    "You are an expert in detecting anomalies in image. Your task is to detect if there are any anomalies in the query image. "
    "If you find anomalies in the query image, structure your response with the following format: "
    "<think>[Your process of observation and reasoning is here]</think><location>[The location of the anomaly in the image]</location>"
    "<type>[The type of the anomaly]</type><answer>[Your final answer is here (yes or no)]</answer> "
    "If no anomalies are detected in the query image, structure your response with the following format: "
    "<think>[Your process of observation and reasoning is here]</think><answer>[Your final answer is here (yes or no)]</answer>\n"
)

# Stands where an anomalous sample has no annotation: the form of the answer stays whole, and the block is not scored.
UNSPECIFIED = "unspecified"

Message = dict[str, Any]


def messages(sample: Sample, *, shots: int = 0, base: bool = False, form: bool = False) -> list[Message]:
    """The chat that asks about a sample, with its first `shots` references before the query.

    A base model is asked for yes or no; a policy that starts from one is told the `form` of an answer.
    """
    if len(sample.references) < shots:
        raise DatasetError(
            f"{sample.id}: {shots}-shot needs {shots} reference images; found {len(sample.references)}. Use fewer shots or add references."
        )
    content = [_image(sample.images[-1]), _text((answer_form if form else "") + question + (yes_or_no if base else ""))]
    return [{"role": "user", "content": _reference_parts(sample.references[:shots]) + content}]


def target(sample: Sample, *, answers_only: bool = False) -> str:
    """The answer to learn: the gold verdict, rendered, or yes or no alone; raises DatasetError for a sample without the reasoning that it needs."""
    if answers_only:
        return Verdict(sample.anomalous).render()
    if not sample.reasoning:
        raise DatasetError(f"{sample.id}: a sample to imitate needs its reasoning; found none. Build it with `dvc repro prepare`.")
    return gold(sample).render()


def gold(sample: Sample) -> Verdict:
    """The verdict that the annotation states."""
    if not sample.anomalous:
        return Verdict(False, None, None, sample.reasoning)
    return Verdict(True, sample.location or UNSPECIFIED, sample.type or UNSPECIFIED, sample.reasoning)


def _reference_parts(references: tuple[str, ...]) -> list[Message]:
    if not references:
        return []
    count = len(references)
    before = f"Following is {count} image of normal sample, which can be used as a template to compare the image being queried."
    return [_text(before), *map(_image, references), _text("Following is image of test sample:")]


def _image(path: str) -> Message:
    return {"type": "image", "image": path}


def _text(text: str) -> Message:
    return {"type": "text", "text": text}
