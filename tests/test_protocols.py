"""What models are asked under each protocol, what they may answer, and which references they are shown."""

import re
from dataclasses import replace

import pytest

from iadr1 import prompts
from iadr1.protocols import PATTERNS, PROTOCOLS
from iadr1.templates import with_similar
from iadr1.verdict import Verdict
from tests.tiny import tiny_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    found = tiny_samples(tmp_path_factory.mktemp("images"), 8)
    goods = [sample.images[0] for sample in found if not sample.anomalous]
    # Two of the four normal images to each sample, as prepare draws them.
    return [replace(sample, references=tuple(goods[at % 3 : at % 3 + 2])) for at, sample in enumerate(found)]


def test_the_papers_protocol_asks_base_and_tuned_models_otherwise_and_the_fair_one_alike(samples):
    paper, fair = PROTOCOLS["paper"], PROTOCOLS["fair"]
    for base in (True, False):
        assert paper.chat(samples[0], shots=1, base=base) == prompts.messages(samples[0], shots=1, base=base)
        assert fair.chat(samples[0], shots=1, base=base) == prompts.messages(samples[0], shots=1, base=True)
    assert (paper.reader(base=True), paper.reader(base=False)) == ("free", "tags")
    assert {fair.reader(base=base) for base in (True, False)} == {"free"}


def test_only_constrained_protocols_hold_answers_to_a_form():
    held = {name: [protocol.pattern(base=base) for base in (True, False)] for name, protocol in PROTOCOLS.items()}
    free, tags = PATTERNS["free"], PATTERNS["tags"]
    assert held == {"paper": [None, None], "fair": [None, None], "constrained": [free, tags], "fair_constrained": [free, free]}


@pytest.mark.parametrize(
    "verdict", [Verdict(False, reasoning="Even."), Verdict(True, "top left", "scratch", "A line.\nLong.")], ids=["normal", "anomalous"]
)
def test_the_form_is_what_the_reader_takes_for_whole(verdict):
    assert re.fullmatch(PATTERNS["tags"], verdict.render())
    assert Verdict.parse(verdict.render()).status == "ok"
    assert not re.fullmatch(PATTERNS["tags"], verdict.render().replace("Yes", "No") + "x")


def test_similar_references_are_the_nearest_of_the_product_and_never_the_query(samples):
    from PIL import Image

    twin = samples[2].images[0].replace(".png", "-twin.png")
    picture = Image.open(samples[2].images[0])
    picture.putpixel((0, 0), (0, 0, 0))
    picture.save(twin)
    known = [replace(samples[0], references=(*samples[0].references, twin)), *samples[1:]]
    other = replace(samples[1], id="other", category="bolt", references=())
    found = with_similar([*known, other], shots=2)
    assert found[2].references[0] == twin
    assert all(len(sample.references) == 2 and sample.images[0] not in sample.references for sample in found[:-1])
    assert found[-1].references == ()  # nothing of its own product: said by the stage
    assert [replace(sample, references=()) for sample in found] == [replace(sample, references=()) for sample in [*known, other]]
