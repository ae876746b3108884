"""Writes docs/rewards.md: what the three presets pay, computed from the code. Run `python docs/make_rewards.py`."""

from pathlib import Path

from iadr1.report_tables import table
from iadr1.rewards import PRESETS, Score, score
from iadr1.samples import Sample
from iadr1.verdict import Verdict

HERE = Path(__file__).parent

THINK = "<think>A line crosses the grain.</think>"
NORMAL = Sample("normal", "made", "plate", ("n.png",), False)
SCRATCH = Sample("scratch", "made", "plate", ("s.png",), True, "top left", "scratch")
CENTER = Sample("hole", "made", "plate", ("h.png",), True, "center", "hole")


def evidence(location: str = "top left", kind: str = "scratch", answer: str = "Yes", think: str = THINK) -> str:
    """A text of the anomalous pattern."""
    return f"{think}<location>{location}</location><type>{kind}</type><answer>{answer}</answer>"


NO = "<think>The grain is even.</think><answer>No</answer>"

# What the row shows, the text, and the sample; rows on which the presets agree say so by being equal.
CASES: list[tuple[str, str, Sample]] = [
    ("the gold answer to a normal image", NO, NORMAL),
    ("the gold answer to a scratch, top left", evidence(), SCRATCH),
    ("an honest miss of the scratch", NO, SCRATCH),
    ("an honest false alarm", evidence(), NORMAL),
    ("a line break between blocks", NO.replace("><", ">\n<"), NORMAL),
    ("text around the blocks", "Sure! " + NO + " Done.", NORMAL),
    ("`Yes.` with a full stop", evidence(answer="Yes."), SCRATCH),
    ("tags in upper case", NO.replace("answer", "ANSWER"), NORMAL),
    ("`No` in the anomalous pattern", evidence(answer="No"), SCRATCH),
    ("evidence without an answer", evidence(answer=""), SCRATCH),
    ("no reasoning", evidence(think="<think></think>"), SCRATCH),
    ("reasoning against the answer", evidence(think="<think>There is no defect.</think>"), SCRATCH),
    ("`unknown` as the answer", NO.replace("No<", "unknown<"), NORMAL),
    ("place: upper left corner", evidence(location="upper left corner"), SCRATCH),
    ("place: north west", evidence(location="north west"), SCRATCH),
    ("place: top left and top center", evidence(location="top left and top center"), SCRATCH),
    (
        "place: all nine",
        evidence(location="top left, top center, top right, center left, center, center right, bottom left, bottom"),
        SCRATCH,
    ),
    ("place: unknown (a hole in the center)", evidence(location="unknown", kind="hole"), CENTER),
    ("place: bright spot (a hole in the center)", evidence(location="bright spot", kind="hole"), CENTER),
    ("type: scratches", evidence(kind="scratches"), SCRATCH),
    ("type: score mark", evidence(kind="score mark"), SCRATCH),
    ("type: scrach", evidence(kind="scrach"), SCRATCH),
    ("type: stain", evidence(kind="stain"), SCRATCH),
    ("type: hole", evidence(kind="hole"), SCRATCH),
    ("type: a full stop", evidence(kind="."), SCRATCH),
    ("type: no scratch", evidence(kind="no scratch"), SCRATCH),
    ("type: whole surface (a hole)", evidence(location="center", kind="whole surface"), CENTER),
    ("type: four kinds (a hole)", evidence(location="center", kind="hole damage deformation abrasion"), CENTER),
    ("type: pit (a hole)", evidence(location="center", kind="pit"), CENTER),
]


# Each decision of the grammar, and of the reader for free text.
TAGGED = {
    "a pattern": NO,
    "tags in another case, white space between blocks": NO.replace("think", "THINK").replace("><", ">\n<"),
    "a full stop after the answer": NO.replace("No<", "No.<"),
    "text around the blocks": "Sure! " + NO,
    "no reasoning, or an empty block": "<answer>No</answer>",
    "the other pattern's answer": evidence(answer="No"),
    "blocks in another order": "<answer>No</answer><think>The grain is even.</think>",
    "a repeated block": NO + "<answer>No</answer>",
    "a runaway that agrees with itself": "<answer>No</answer>No</answer>No</answer>",
    "nested tags": "<answer><answer>No</answer></answer>",
    "a sentence as the answer": NO.replace("No<", "No, it is fine<"),
    "a reasoning that never closes": "<think>It is even.<answer>No</answer>",
    "two answers that differ": "<answer>Yes</answer><answer>No</answer>",
    "both words in one answer": NO.replace("No<", "yes or no<"),
    "an answer inside the reasoning only": "<think>so <answer>No</answer></think>",
    "a text that stops": "<think>The grain is",
    "an answer block that never closes": "<think>It is even.</think><answer>No",
    "an empty answer": NO.replace("No<", "<"),
    "unknown": NO.replace("No<", "unknown<"),
    "abnormal": NO.replace("No<", "Abnormal<"),
    "no doubt": NO.replace("No<", "No doubt it is bent<"),
    "no tags": "The part is fine.",
}
FREE = [
    "Yes, there is a noticeable scratch.", "No, the surface looks fine.", "B.", "(A) Yes.", "The answer is: No.", "A. No.", "yes or no",
    "There are visible defects.", "The surface looks normal.", "No doubt there is a defect.", "I cannot tell.",
]  # fmt: skip


def readings() -> str:
    """Every decision with its text, answer and status."""
    rows = [[case, f"`{text}`".replace("\n", "↵"), *_reading(Verdict.parse(text))] for case, text in TAGGED.items()]
    return table(["a text with", "for example", "answer", "status"], rows)


def free_readings() -> str:
    """Free texts with answer and status."""
    return table(["a base model says", "answer", "status"], [[text, *_reading(Verdict.read(text))] for text in FREE])


def _reading(verdict: Verdict) -> list[str]:
    return [{True: "yes", False: "no", None: "–"}[verdict.anomalous], verdict.status]


def differences() -> str:
    """Every case with consistency, accuracy, location, type and total under each preset."""
    header = ["completion", *(f"{name}: con acc loc type = total" for name in PRESETS)]
    return table(header, [[case, *(_cell(score(text, sample, preset=name)) for name in PRESETS)] for case, text, sample in CASES])


def _cell(found: Score) -> str:
    parts = " ".join("–" if value is None else f"{value:g}" if value in (0, 1) else f"{value:.2f}" for value in found[:4])
    return f"{parts} = **{found.total:.2f}**"


def document() -> str:
    """The whole page."""
    text = (HERE / "rewards.template.md").read_text(encoding="utf-8")
    for name, made in {"differences": differences, "readings": readings, "free_readings": free_readings}.items():
        text = text.replace(f"{{{name}}}\n", made())
    return text


if __name__ == "__main__":
    (HERE / "rewards.md").write_text(document(), encoding="utf-8")
