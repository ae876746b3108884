"""Engines answer as the model would alone: batches, padding, order and reference images change nothing."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from iadr1 import prompts
from iadr1.engines import Chat, Generated, TransformersEngine, VllmEngine, images_of
from iadr1.p_yes import answer_position, answer_tokens
from tests.tiny import build, tiny_samples

LIMIT = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose weights are large enough to say something different about each image."""
    folder = tmp_path_factory.mktemp("model")
    build(folder, seed=3)
    scaled(folder, 9.0)
    return folder


def scaled(folder: Path, factor: float) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file(
        {name: tensor * factor if tensor.ndim > 1 else tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"}
    )


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> list[Chat]:
    """Chats of different lengths, with no, one or two reference images."""
    samples = tiny_samples(tmp_path_factory.mktemp("images"), 7)
    others = [sample.images[0] for sample in samples]
    with_references = [replace(sample, references=tuple(others[: at % 3])) for at, sample in enumerate(samples)]
    return [prompts.messages(sample, shots=len(sample.references), base=at % 2 == 0) for at, sample in enumerate(with_references)]


@pytest.fixture(scope="module")
def alone(model: Path, chats: list[Chat]) -> list[Generated]:
    """The answers of plain `generate`, one chat at a time, without any padding, with P(yes) from all its logits."""
    import torch

    from iadr1 import backbones
    from iadr1.images import open_image

    network, processor = backbones.load_model(model), backbones.load_processor(model)
    yes, no = answer_tokens(processor.tokenizer)
    keys = {"max_new_tokens": LIMIT, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    answers = []
    for chat in chats:
        text = processor.apply_chat_template(chat, add_generation_prompt=True)
        inputs = processor(images=[open_image(path) for path in images_of(chat)], text=[text], return_tensors="pt")
        with torch.inference_mode():
            output = network.generate(**inputs, **keys, suppress_tokens=[network.config.image_token_id])
        ids = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        ended = ids[-1] == processor.tokenizer.eos_token_id
        at = answer_position(processor.tokenizer.decode, [token for token in ids if token != processor.tokenizer.eos_token_id])
        chances = None if at is None else output.logits[at][0].softmax(-1)
        sure = None if chances is None else float(chances[yes].sum() / chances[yes + no].sum())
        said = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        answers.append(Generated(said, not ended, len(ids), sure, "stop" if ended else "length"))
    return answers


def same(answers: Sequence[Generated], expected: Sequence[Generated]) -> bool:
    """Whether all is alike, P(yes) but for the last bits."""
    chances = [answer.p_yes for answer in expected]
    plain = [replace(answer, p_yes=None) for answer in expected]
    return [replace(answer, p_yes=None) for answer in answers] == plain and [answer.p_yes for answer in answers] == pytest.approx(
        chances, abs=1e-4
    )


def test_the_answers_differ_from_each_other_and_so_does_how_sure_they_are(alone: list[Generated]) -> None:
    assert len({answer.text for answer in alone}) > 3
    assert len({answer.p_yes for answer in alone} - {None}) > 3


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batches_answer_as_one_by_one_would(model: Path, chats: list[Chat], alone: list[Generated], batch_size: int) -> None:
    done: list[int] = []
    assert same(TransformersEngine(model, batch_size=batch_size, max_new_tokens=LIMIT)(chats, done.append), alone)
    assert sum(done) == len(chats)


def test_what_is_not_wanted_is_not_asked_but_for_its_batch(model: Path, chats: list[Chat], alone: list[Generated]) -> None:
    engine = TransformersEngine(model, batch_size=2, max_new_tokens=LIMIT)
    every = [sorted(some) for some in engine.stream(chats)]
    few = list(engine.stream(chats, lambda at: at == 5))
    assert [sorted(some) for some in few] == [batch for batch in every if 5 in batch]
    assert all(same([answer], [alone[at]]) and answer.seconds for at, answer in few[0].items())


def test_an_answer_that_is_cut_off_says_so(model: Path, chats: list[Chat]) -> None:
    answers = TransformersEngine(model, batch_size=4, max_new_tokens=1)(chats)
    assert all(answer.truncated and answer.tokens == 1 and answer.finish == "length" for answer in answers)


def test_no_chats_give_no_answers(model: Path) -> None:
    assert TransformersEngine(model, batch_size=4, max_new_tokens=1)([]) == []


PATTERN = r"(Yes|No)\."


def test_constrained_answers_have_the_form_asked_for(model: Path, chats: list[Chat]) -> None:
    pytest.importorskip("xgrammar")
    engine = TransformersEngine(model, batch_size=3, max_new_tokens=LIMIT)
    found = {at: answer for some in engine.stream(chats, pattern=PATTERN) for at, answer in some.items()}
    assert len(found) == len(chats)
    # A form that decides leaves no P(yes) of the model's own.
    assert all(answer.text in ("Yes.", "No.") and answer.finish == "stop" and answer.p_yes is None for answer in found.values())


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the modules that hold Flask's proxies, where another test's server has imported them.

    vLLM looks at every attribute of every module with hasattr, and outside of a request such a proxy raises RuntimeError at that.
    """
    for name, module in list(sys.modules.items()):
        if any(type(value).__name__ == "LocalProxy" for value in getattr(module, "__dict__", {}).values()):
            monkeypatch.delitem(sys.modules, name)


@pytest.mark.slow
@pytest.mark.usefixtures("no_proxies")
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_answers_as_transformers_does(model: Path, chats: list[Chat], alone: list[Generated]) -> None:
    engine = VllmEngine(model, batch_size=2, max_new_tokens=LIMIT, max_pixels=96 * 96, images=3)
    assert same(engine(chats), alone)
    some = [answer for found in engine.stream(chats, lambda at: at in (1, 5)) for answer in sorted(found.items())]
    assert [at for at, _ in sorted(some, key=lambda pair: pair[0])] == [1, 5]
    constrained = [answer for found in engine.stream(chats, pattern=PATTERN) for answer in found.values()]
    assert len(constrained) == len(chats) and {(answer.text, answer.p_yes) for answer in constrained} <= {("Yes.", None), ("No.", None)}
