"""Every family keeps the whole contract: built, tuned, rewarded, saved in the published layout, reloaded, and the same answers from every engine."""

import functools
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from iadr1 import backbones, pa_sft, prompts, sc_grpo
from iadr1.engines import Chat, TransformersEngine, images_of
from iadr1.errors import DatasetError, ModelError
from iadr1.images import open_image
from iadr1.samples import Sample
from iadr1.training import Job, Outcome
from tests.families import FAMILIES, member, names_on_disk, temporary_folder
from tests.tiny import tiny_samples

LIMIT = 8
every_family = pytest.mark.parametrize("family", FAMILIES)
PA_SFT = {
    "max_steps": 1,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
}
SC_GRPO = {**PA_SFT, "max_steps": 2, "num_generations": 2, "beta": 0.04, "max_completion_length": LIMIT}
# Differs within a group, so that there is something to learn from random completions.
REWARD = "def spread(verdict, sample, grid):\n    spread.calls += 1\n    return float(spread.calls % 2)\nspread.calls = 0\n"


@functools.cache
def samples() -> list[Sample]:
    """Four samples, two of them wide; the second and the last have a reference, so that batches have one and two images."""
    from PIL import Image

    folder = temporary_folder()
    (folder / "wide").mkdir()
    some = [*tiny_samples(folder, 2), *tiny_samples(folder / "wide", 2, side=80)]
    for sample in some[2:]:
        Image.open(sample.images[0]).crop((0, 0, 80, 44)).save(sample.images[0])
    named = [replace(sample, id=f"made/{at}") for at, sample in enumerate(some)]
    return [replace(sample, references=(named[0].images[0],) if at % 2 else ()) for at, sample in enumerate(named)]


def chats() -> list[Chat]:
    return [prompts.messages(sample, shots=len(sample.references)) for sample in samples()]


@dataclass(frozen=True)
class Trained:
    """A family's member after PA-SFT and SC-GRPO: where it lies, what was logged, and what it said before it was saved."""

    folder: Path
    pa_sft: Outcome
    sc_grpo: Outcome
    said: list[list[int]]


@functools.cache
def trained(family: str) -> Trained:
    folder, said = temporary_folder(), []

    def listen() -> Any:
        from transformers import TrainerCallback

        class Listen(TrainerCallback):
            def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **_: Any) -> None:
                said.extend(alone(model, processing_class))

        return Listen()

    (folder / "own.py").write_text(REWARD, encoding="utf-8")
    first = Job(PA_SFT, member(family), None, (), 0, folder / "checkpoints1", folder / "pa_sft")
    tuned = pa_sft.train(first, samples(), validation=[], shots=1)
    second = Job(SC_GRPO, folder / "pa_sft", None, (), 0, folder / "checkpoints2", folder / "sc_grpo", callbacks=[listen()])
    rewards = {f"{folder / 'own.py'}:spread": 1.0}
    rewarded = sc_grpo.train(second, samples(), validation=[], preset="paper", rewards=rewards, grid=3, shots=1)
    return Trained(folder / "sc_grpo", tuned, rewarded, said)


def alone(model: Any, processor: Any) -> list[list[int]]:
    """The greedy tokens of plain `generate` for each chat, without any padding."""
    import torch

    model.eval()
    found = []
    for chat in chats():
        images = [open_image(path) for path in images_of(chat)]
        text = backbones.prompt_text(processor, chat)
        inputs = processor(images=[images], text=[text], return_tensors="pt", add_special_tokens=False)
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "suppress_tokens": [model.config.image_token_id]}
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=LIMIT, **greedy)[0]
        found.append(ids[inputs["input_ids"].shape[1] :].tolist())
    return found


def collator(family: str, *, max_length: int | None = None) -> pa_sft.Collator:
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    processor = backbones.load_processor(member(family))
    return pa_sft.Collator(DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True), remember=0, max_length=max_length)


@every_family
def test_the_loss_is_on_the_answer_and_its_end_and_on_nothing_else(family: str) -> None:
    collate = collator(family)
    batch, tokenizer = collate(list(pa_sft.rows(samples(), shots=1))), collate.collator.processor.tokenizer
    for sample, ids, labels in zip(samples(), batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        start = next(at for at, label in enumerate(labels) if label != -100)
        learned = [label for label in labels if label != -100]
        assert labels == [-100] * start + ids[start : start + len(learned)] + [-100] * (len(ids) - start - len(learned))
        assert tokenizer.eos_token_id in learned and tokenizer.eos_token_id not in ids[start + len(learned) :]
        assert tokenizer.decode(learned).strip().removesuffix(tokenizer.eos_token).strip() == prompts.target(sample)


@every_family
def test_the_prompt_is_the_same_in_pa_sft_rollout_and_evaluation(family: str) -> None:
    collate = collator(family)
    processor = collate.collator.processor
    tokenizer = processor.tokenizer
    batch = collate(list(pa_sft.rows(samples(), shots=1)))
    shown = [[{**chat[0], "content": [_opened(part) for part in chat[0]["content"]]}] for chat in chats()]
    rollout = processor.apply_chat_template(conversation=shown, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    for chat, ids, labels, rolled in zip(chats(), batch["input_ids"].tolist(), batch["labels"].tolist(), rollout, strict=True):
        images = [[open_image(path) for path in images_of(chat)]]
        asked = processor(images=images, text=[backbones.prompt_text(processor, chat)], add_special_tokens=False)["input_ids"][0]
        start = next(at for at, label in enumerate(labels) if label != -100)
        assert ids[:start] == list(asked) == list(rolled)
        assert asked.count(tokenizer.bos_token_id) == (FAMILIES[family].bos is not None)


def _opened(part: dict[str, Any]) -> dict[str, Any]:
    return {**part, "image": open_image(part["image"])} if part["type"] == "image" else part


@every_family
def test_a_cut_row_is_refused_before_and_in_the_model(family: str) -> None:
    rows = list(pa_sft.rows(samples()[:1]))
    with pytest.raises(DatasetError, match=r"pa_sft.max_length is 9; the row of .*000.png has \d+ tokens"):
        collator(family, max_length=9)(rows)
    batch, model = collator(family)(rows), backbones.load_model(member(family))
    last = (batch["input_ids"][0] == model.config.image_token_id).nonzero()[-1].item()
    cut = {
        name: value[:, :last] if name in ("input_ids", "attention_mask", "mm_token_type_ids") else value for name, value in batch.items()
    }
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        model(**{name: value for name, value in cut.items() if name != "labels"})


@every_family
def test_every_parameter_belongs_to_a_part_by_name(family: str) -> None:
    record, model = backbones.BACKBONES[family], backbones.load_model(member(family))
    prefixes = (*record.vision, *record.projector, *record.language)
    assert [name for name, _ in model.named_parameters() if not name.startswith(prefixes)] == []
    assert all(size["parameters"] for size in backbones.part_sizes(model).values())


@every_family
def test_image_tokens_are_known_by_one_number(family: str) -> None:
    model, processor = backbones.load_model(member(family)), backbones.load_processor(member(family))
    assert model.config.image_token_id == processor.tokenizer.convert_tokens_to_ids(processor.image_token) == processor.image_token_id
    engine = TransformersEngine(member(family), batch_size=4, max_new_tokens=1)
    assert engine._greedy()["suppress_tokens"] == [model.config.image_token_id]


@every_family
def test_both_trainings_take_their_steps_with_one_and_two_images(family: str) -> None:
    import torch

    done = trained(family)
    before, after = (backbones.load_model(folder).state_dict() for folder in (member(family), done.folder))
    changed = {backbones.BACKBONES[family].part(name) for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(backbones.PARTS)
    first, second = sc_grpo.curve(done.sc_grpo.history, {"spread": 1.0})
    # The reference model scores the rows in order, the learner shuffled and from buffers: at the first step they must agree.
    assert abs(first["kl"]) < 1e-6 < second["kl"] and first["reward_std"] > 0


@every_family
def test_the_weights_on_disk_are_named_as_published_ones_are(family: str) -> None:
    names = names_on_disk(trained(family).folder)
    assert names == names_on_disk(member(family))
    assert [name for name in names if not re.match(FAMILIES[family].published, name)] == []


@every_family
def test_what_is_reloaded_says_what_was_saved(family: str) -> None:
    done = trained(family)
    model, processor = backbones.load_model(done.folder), backbones.load_processor(done.folder)
    assert alone(model, processor) == done.said
    assert len({tuple(tokens) for tokens in done.said}) > 2


@every_family
def test_a_padded_batch_of_one_and_two_images_answers_as_one_by_one(family: str) -> None:
    done = trained(family)
    engine = TransformersEngine(done.folder, batch_size=4, max_new_tokens=LIMIT)
    assert [answer.text for answer in engine(chats())] == texts(engine.processor, done.said)


def texts(processor: Any, said: Sequence[list[int]]) -> list[str]:
    return [processor.tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in said]


VLLM = """
import json, sys
from pathlib import Path
from iadr1.engines import VllmEngine
folder, chats, limit, images = json.loads(sys.argv[1])
engine, heard = VllmEngine(Path(folder), batch_size=4, max_new_tokens=limit, images=images), {}
read = engine._generated
engine._generated = lambda output, at, asked: heard.update({at: list(output.token_ids)}) or read(output, at, asked)
engine(chats)
print("SAID" + json.dumps([heard[at] for at in range(len(chats))]))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
@every_family
def test_vllm_says_what_transformers_says(family: str) -> None:
    done, most = trained(family), backbones.BACKBONES[family].vllm_images or 2
    asked = [(chat, said) for chat, said in zip(chats(), done.said, strict=True) if len(images_of(chat)) <= most]
    told = json.dumps([str(done.folder), [chat for chat, _ in asked], LIMIT, most])
    ran = subprocess.run([sys.executable, "-c", VLLM, told], capture_output=True, text=True, check=False, timeout=1800)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(ran.stdout.rpartition("SAID")[2]) == [said for _, said in asked]


def test_vllm_refuses_images_that_it_would_show_otherwise() -> None:
    from iadr1.engines import VllmEngine

    with pytest.raises(ModelError, match="vLLM shows this family 2 images otherwise than transformers does"):
        VllmEngine(member("llava_onevision"), batch_size=4, max_new_tokens=1, images=2)


def test_a_hub_id_in_place_of_a_folder_is_told_how_to_fetch_it() -> None:
    with pytest.raises(
        ModelError, match=r"fetch it with `hf download Qwen/Qwen2-VL-2B-Instruct --revision 895c3a49\w+ --local-dir models/Qwen2-VL"
    ):
        backbones.backbone_of(Path("Qwen/Qwen2-VL-2B-Instruct"))
    with pytest.raises(ModelError, match=r"take the commit from the model's page"):
        backbones.backbone_of(Path("llava-hf/llava-onevision-qwen2-0.5b-si-hf"))
