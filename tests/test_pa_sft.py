"""PA-SFT: what is learned token by token, what is remembered, what survives a kill, and what is refused."""

import hashlib
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from iadr1 import backbones, length_grouping, pa_sft, prompts, training
from iadr1.errors import DatasetError, ModelError, ParamsError
from iadr1.samples import Sample
from iadr1.training import Job, Outcome
from tests.tiny import SIDE, tiny_backbone, tiny_samples

KEYS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "save_steps": 2,
    "learning_rate": 1e-3,
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return tiny_samples(tmp_path_factory.mktemp("images"), 12)


class Killed(Exception):
    pass


def killed_after(step: int, event: str = "on_step_end"):  # type: ignore[no-untyped-def]
    """A callback that ends the training as a kill would: at once, wherever it is."""
    from transformers import TrainerCallback

    def kill(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        if state.global_step == step:
            raise Killed

    return type("Kill", (TrainerCallback,), {event: kill})()


def trained(  # type: ignore[no-untyped-def]
    folder: Path, samples: list[Sample], *, callbacks=(), freeze=(), lora=None, shots=0, **keys
) -> tuple[str, Outcome]:
    """The hash of the weights after a training in a folder, and its outcome."""
    into = folder / "model"
    shutil.rmtree(into, ignore_errors=True)
    job = Job({**KEYS, **keys}, tiny_backbone(), SIDE * SIDE, freeze, 0, folder / "checkpoints", into, callbacks=callbacks, lora=lora or {})
    outcome = pa_sft.train(job, samples[:10], validation=samples[10:], shots=shots)
    return hashlib.sha256((into / "model.safetensors").read_bytes()).hexdigest(), outcome


@pytest.fixture(scope="module")
def undisturbed(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Outcome]:
    return trained(tmp_path_factory.mktemp("undisturbed"), samples)


def test_the_loss_is_on_the_completion_and_on_nothing_else(samples: list[Sample]) -> None:
    collator = collator_of(remember=2**20)
    batch = collator(list(pa_sft.rows(samples[:4])))
    decode = collator.collator.processor.tokenizer.decode
    for sample, ids, labels in zip(samples, batch["input_ids"], batch["labels"], strict=False):
        learned = [token for token in labels.tolist() if token != -100]
        assert decode(learned) == prompts.target(sample) + "<|im_end|>\n"
        start = labels.tolist().index(learned[0])
        assert ids[start : start + len(learned)].tolist() == learned and set(labels[:start].tolist()) == {-100}
        assert decode(ids[:start]).endswith("<|im_start|>assistant\n") and set(labels[start + len(learned) :].tolist()) <= {-100}


def collator_of(*, remember: int) -> pa_sft.Collator:
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    processor = backbones.load_processor(tiny_backbone(), max_pixels=SIDE * SIDE)
    return pa_sft.Collator(DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True), remember=remember)


def test_remembered_batches_equal_those_of_trl(samples: list[Sample]) -> None:
    import torch

    rows = list(pa_sft.rows([*samples[:3], replace(samples[3], reasoning="Even.")]))
    plain, remembering = collator_of(remember=0)(rows), collator_of(remember=2**20)
    for batch in (remembering(rows), remembering(rows)):
        assert batch.keys() == plain.keys() and all(torch.equal(batch[name], plain[name]) for name in plain)


def test_memory_for_encoded_samples_is_bounded(samples: list[Sample]) -> None:
    collator = collator_of(remember=100_000)
    collator(list(pa_sft.rows(samples)))
    assert 0 < len(collator.known) < len(samples)


def test_the_loss_falls_and_the_validation_is_logged(undisturbed: tuple[str, Outcome]) -> None:
    rows = training.curve(undisturbed[1].history, pa_sft.COLUMNS, of="loss")
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["eval_loss"] < rows[2]["eval_loss"]


def test_the_same_seed_gives_the_same_weights(undisturbed: tuple[str, Outcome], samples: list[Sample], tmp_path: Path) -> None:
    assert trained(tmp_path, samples)[0] == undisturbed[0]


@pytest.mark.parametrize(
    "step, event, save_steps",
    [(1, "on_step_end", 2), (3, "on_step_end", 2), (5, "on_step_end", 2), (3, "on_save", 3)],  # the first epoch ends with step 3
)
def test_a_killed_training_resumes_to_the_weights_and_the_curve_of_an_undisturbed_one(
    undisturbed: tuple[str, Outcome], samples: list[Sample], tmp_path: Path, step: int, event: str, save_steps: int
) -> None:
    with pytest.raises(Killed):
        trained(tmp_path, samples, callbacks=[killed_after(step, event)], save_steps=save_steps)
    weights, outcome = trained(tmp_path, samples, save_steps=save_steps)
    assert weights == undisturbed[0]
    assert training.curve(outcome.history, pa_sft.COLUMNS, of="loss") == training.curve(undisturbed[1].history, pa_sft.COLUMNS, of="loss")


def test_a_training_killed_after_its_last_step_takes_no_other(samples: list[Sample], tmp_path: Path) -> None:
    keys = {"max_steps": 4, "lr_scheduler_type": "constant"}  # in the midst of an epoch
    whole, _ = trained(tmp_path / "whole", samples, **keys)
    with pytest.raises(Killed):
        trained(tmp_path / "killed", samples, callbacks=[killed_after(4, "on_train_end")], **keys)
    weights, outcome = trained(tmp_path / "killed", samples, **keys)
    assert (weights, outcome.steps) == (whole, 4)


def spoiled_after(step: int):  # type: ignore[no-untyped-def]
    """A callback that makes the model say anything from a step on."""
    from transformers import TrainerCallback

    class Spoil(TrainerCallback):
        def on_step_end(self, args, state, control, model, **_):  # type: ignore[no-untyped-def]
            if state.global_step > step:
                for weights in (one for one in model.parameters() if one.requires_grad):
                    weights.data.normal_()

    return Spoil()


@pytest.mark.parametrize("adapters", [{}, {"lora": {"r": 4}}], ids=["full", "lora"])
def test_the_model_of_the_lowest_validation_loss_is_kept_where_that_is_wanted(
    samples: list[Sample], tmp_path: Path, adapters: dict
) -> None:
    told = {"lr_scheduler_type": "constant", **adapters}
    chosen = {**told, "load_best_model_at_end": True}
    good, plain = trained(tmp_path / "good", samples, max_steps=2, **told)
    weights, outcome = trained(tmp_path / "best", samples, callbacks=[spoiled_after(2)], **chosen)
    assert (weights, outcome.best_step, outcome.steps, plain.best_step) == (good, 2, 6, None)
    with pytest.raises(Killed):
        trained(tmp_path / "killed", samples, callbacks=[spoiled_after(2), killed_after(5)], **chosen)
    again, outcome = trained(tmp_path / "killed", samples, callbacks=[spoiled_after(2)], **chosen)
    assert (again, outcome.best_step) == (good, 2)


def differing(samples: list[Sample]) -> list[Sample]:
    """The samples with thoughts of one to four sentences."""
    return [replace(sample, reasoning=" ".join([sample.reasoning or ""] * (1 + at % 4))) for at, sample in enumerate(samples)]


def test_rows_of_about_a_length_share_a_batch_in_an_order_of_seed_and_epoch_alone() -> None:
    import torch

    lengths = [10 * (1 + at % 7) for at in range(512)]
    trainer = SimpleNamespace(
        train_dataset={"length": lengths},
        args=SimpleNamespace(seed=3, train_batch_size=2, gradient_accumulation_steps=2, world_size=2, length_column_name="length"),
        state=SimpleNamespace(epoch=None),
    )
    kind = length_grouping.grouping(type("Trainer", (), {}))

    def order(epoch: float | None) -> list[int]:
        torch.manual_seed(random.randrange(2**31))
        trainer.state.epoch = epoch
        return list(kind._get_train_sampler(trainer))

    def padding(order: Sequence[int]) -> int:
        steps = [[lengths[at] for at in order[start : start + 8]] for start in range(0, len(order), 8)]
        return sum(max(step) * len(step) - sum(step) for step in steps)

    first = order(None)
    assert sorted(first) == list(range(len(lengths))) and first == order(0.0)
    assert order(1.0) == order(1.5) != first
    assert padding(first) < 0.2 * padding(range(len(lengths)))


def test_lengths_are_about_those_of_the_encoded_rows(samples: list[Sample]) -> None:
    rows, collator = differing(samples), collator_of(remember=0)
    found = length_grouping.token_counts(collator.collator.processor, rows, [prompts.target(sample) for sample in rows], shots=0)
    true = [int(collator([row])["attention_mask"].sum()) for row in pa_sft.rows(rows)]
    assert max(true) > 1.5 * min(true) and all(abs(one - other) <= 4 for one, other in zip(found, true, strict=True))


def test_a_training_in_groups_of_a_length_that_was_killed_in_its_second_epoch_resumes_with_the_same_order(
    samples: list[Sample], tmp_path: Path
) -> None:
    told, rows = {"train_sampling_strategy": "group_by_length"}, differing(samples)
    whole, _ = trained(tmp_path / "whole", rows, **told)
    assert whole != trained(tmp_path / "any", rows)[0]
    with pytest.raises(Killed):
        trained(tmp_path / "cut", rows, callbacks=[killed_after(5)], **told)
    assert trained(tmp_path / "cut", rows, **told)[0] == whole


@pytest.mark.parametrize(
    "keys, rows, message",
    [
        ({"packing": True}, 12, "pa_sft.packing: TRL has True for texts alone"),
        ({"train_sampling_strategy": "batch_rebalance"}, 12, "pa_sft.train_sampling_strategy: TRL has batch_rebalance for texts alone"),
        ({"load_best_model_at_end": True}, 10, "pa_sft.load_best_model_at_end: there are no validation rows to choose by"),
    ],
)
def test_keys_that_cannot_be_met_are_refused(samples: list[Sample], tmp_path: Path, keys: dict, rows: int, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        trained(tmp_path, samples[:rows], **keys)


def test_a_batch_taken_in_parts_weighs_each_token_the_same(samples: list[Sample], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    # Plain gradient descent: Adam would make a step of full size even from a rounding error.
    once = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0}
    trained(whole, samples, **once)
    trained(parts, samples, **once, per_device_train_batch_size=1, gradient_accumulation_steps=KEYS["per_device_train_batch_size"])
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (whole, parts))
    assert max((one[name] - other[name]).abs().max().item() for name in one) < 1e-5


@pytest.mark.parametrize("damage", ["unmarked", "a bit flipped", "cut off", "a file is gone", "marked before its hashes were written"])
def test_a_checkpoint_that_is_not_as_it_was_written_is_removed_and_not_resumed_from(tmp_path: Path, damage: str) -> None:
    for step in (2, 10, 12):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_bytes(b"weights")
        (folder / training.COMPLETE).write_text(training._hashes(folder))
    assert training.resume_point(tmp_path) == str(folder)
    match damage:
        case "unmarked":
            (folder / training.COMPLETE).unlink()
        case "a bit flipped":
            (folder / "weights").write_bytes(b"weighus")
        case "cut off":
            (folder / "weights").write_bytes(b"")
        case "a file is gone":
            (folder / "weights").unlink()
        case _:
            (folder / training.COMPLETE).write_text("")
    assert training.resume_point(tmp_path) == str(tmp_path / "checkpoint-10")
    assert not folder.exists()


def test_frozen_parts_keep_their_weights(samples: list[Sample], tmp_path: Path) -> None:
    import torch

    _, outcome = trained(tmp_path, samples, freeze=("vision", "projector"), max_steps=1)
    assert outcome.parts["vision"]["trained"] == 0 < outcome.parts["language"]["trained"]
    before, after = (backbones.load_model(folder).state_dict() for folder in (tiny_backbone(), tmp_path / "model"))
    changed = {backbones.BACKBONES["qwen2_5_vl"].part(name) for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"language"}


def test_adapters_are_trained_resumed_and_merged_into_the_weights(samples: list[Sample], tmp_path: Path) -> None:
    import torch

    told = {"lora": {"r": 4, "lora_alpha": 8}, "freeze": ("vision",), "learning_rate": 1e-2}
    whole, outcome = trained(tmp_path / "whole", samples, **told)
    assert outcome.parts["vision"]["trained"] == 0 < outcome.parts["language"]["trained"] < outcome.parts["language"]["parameters"] / 4
    losses = [entry["loss"] for entry in outcome.history if "loss" in entry]
    assert losses[-1] < losses[0]
    before, after = (backbones.load_model(folder).state_dict() for folder in (tiny_backbone(), tmp_path / "whole" / "model"))
    assert before.keys() == after.keys()
    changed = {backbones.BACKBONES["qwen2_5_vl"].part(name) for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"projector", "language"}
    with pytest.raises(Killed):
        trained(tmp_path / "cut", samples, callbacks=[killed_after(3)], **told)
    assert trained(tmp_path / "cut", samples, **told)[0] == whole


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda rows: [], "PA-SFT has no rows"),
        (lambda rows: [rows[0], replace(rows[1], reasoning=None)], "1 of 2 rows have no reasoning, first made/001"),
        (lambda rows: [replace(rows[0], images=("gone.png",))], "1 of 1 images cannot be read: gone.png"),
    ],
)
def test_rows_that_cannot_be_learned_are_refused(samples: list[Sample], spoil: Callable, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        pa_sft.require_trainable(spoil(samples))


def test_a_full_disk_is_told_from_other_errors(samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr("transformers.Trainer._save_rng_state", fails)
    with pytest.raises(RuntimeError, match="unexpected pos"):
        trained(tmp_path, samples)
    monkeypatch.setattr(training.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"the disk is full \(0 MiB left\)"):
        trained(tmp_path, samples)


def test_a_full_disk_is_told_where_the_model_is_saved_too(samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def fails(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(backbones, "save", fails)
    monkeypatch.setattr(training.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=rf"{tmp_path}/model: the disk is full \(0 MiB left\)"):
        trained(tmp_path, samples, max_steps=1)


def test_an_evaluation_between_two_log_entries_leaves_no_hole_in_the_curve() -> None:
    history = [
        {"step": 5, "loss": 2.0},
        {"step": 7, "eval_loss": 1.5, "epoch": 1.0},
        {"step": 10, "loss": 1.0},
        {"step": 10, "train_loss": 1.5},
    ]
    assert training.curve(history, ("loss", "eval_loss"), of="loss") == [
        {"step": 5, "loss": 2.0, "eval_loss": 1.5},
        {"step": 10, "loss": 1.0, "eval_loss": None},
    ]
