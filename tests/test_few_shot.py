"""Few-shot training: rows of one and of two images in one batch, the references first, the query last, through PA-SFT and SC-GRPO."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iadr1 import backbones, pa_sft, prompts, sc_grpo
from iadr1.errors import DatasetError
from iadr1.samples import Sample
from tests.test_pa_sft import collator_of
from tests.test_pa_sft import trained as pa_sft_trained
from tests.test_sc_grpo import REWARDS
from tests.tiny import SIDE, tiny_backbone, tiny_samples


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Plates of which every third has no reference; the references are of another size than the queries, so that no image passes for another."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    samples = tiny_samples(folder, 12)
    for number, sample in enumerate(samples):
        Image.open(sample.images[0]).crop((0, 0, SIDE, SIDE // 2)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
            folder / f"good{number}.png"
        )
    references = [(str(folder / f"good{number}.png"),) if number % 3 else () for number in range(len(samples))]
    return [replace(sample, references=names) for sample, names in zip(samples, references, strict=True)]


def shown(sample: Sample) -> tuple[str, ...]:
    """The images of a one-shot prompt, in order."""
    return (*sample.references[:1], sample.images[-1])


def images_in(pixels: Any, grids: Any, counts: Sequence[int], samples: Sequence[Sample]) -> list[tuple[str, ...]]:
    """Which images the rows of a batch hold, found by their pixels."""
    processor = backbones.load_processor(tiny_backbone(), max_pixels=SIDE * SIDE)
    paths = {path for sample in samples for path in shown(sample)}
    known = {path: processor.image_processor([pa_sft.open_image(path)], return_tensors="pt")["pixel_values"] for path in paths}
    blocks = pixels.split(grids.prod(-1).tolist())
    names = iter([next(path for path, own in known.items() if own.shape == block.shape and own.equal(block)) for block in blocks])
    return [tuple(next(names) for _ in range(count)) for count in counts]


def image_tokens(sample: Sample) -> int:
    """Four for a query, two for a reference of half its height."""
    return 4 + 2 * len(sample.references[:1])


def test_a_training_prompt_shows_the_references_it_has_and_the_query_last(mixed: list[Sample]) -> None:
    for sample in mixed[:3]:
        row = pa_sft.prompt_row(sample, shots=1)
        (asked,) = prompts.messages(sample, shots=len(sample.references))
        assert row["images"] == list(shown(sample))
        assert row["prompt"][0]["content"] == [{"type": part["type"], "text": part.get("text")} for part in asked["content"]]
    assert pa_sft.prompt_row(mixed[1])["images"] == list(mixed[1].images)


def test_a_reference_that_cannot_be_read_is_named_before_training(mixed: list[Sample]) -> None:
    broken = [replace(mixed[1], references=("gone.png",))]
    for stage in (pa_sft, sc_grpo):
        stage.require_trainable(broken)
        with pytest.raises(DatasetError, match=r"1 of 2 images cannot be read: gone\.png"):
            stage.require_trainable(broken, shots=1)


@pytest.mark.parametrize("remember", [0, 2**20])
def test_a_batch_of_pa_sft_holds_each_rows_images_in_order(mixed: list[Sample], remember: int) -> None:
    samples = mixed[:6]
    batch = collator_of(remember=remember)(list(pa_sft.rows(samples, shots=1)))
    counts = [len(shown(sample)) for sample in samples]
    assert counts == [1, 2, 2, 1, 2, 2]
    assert images_in(batch["pixel_values"], batch["image_grid_thw"], counts, samples) == [shown(sample) for sample in samples]
    token = backbones.load_processor(tiny_backbone(), max_pixels=None).image_token_id
    assert (batch["input_ids"] == token).sum(1).tolist() == [image_tokens(sample) for sample in samples]


def test_a_row_means_the_same_alone_and_in_a_batch_and_another_with_its_images_swapped(mixed: list[Sample]) -> None:
    import torch

    model, collator = backbones.load_model(tiny_backbone()), collator_of(remember=0)

    def losses(rows: Sequence[Any]) -> list[float]:
        batch = collator(list(rows))
        with torch.no_grad():
            logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[:, :-1]
        found = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch["labels"][:, 1:], reduction="none")
        return (found.sum(1) / (batch["labels"][:, 1:] != -100).sum(1)).tolist()

    rows = list(pa_sft.rows(mixed[:4], shots=1))
    assert losses(rows) == pytest.approx([losses([row])[0] for row in rows], abs=1e-5)
    assert abs(losses([{**rows[1], "images": rows[1]["images"][::-1]}])[0] - losses(rows)[1]) > 1e-5


def test_pa_sft_learns_from_rows_of_one_and_two_images(mixed: list[Sample], tmp_path: Path) -> None:
    weights, outcome = pa_sft_trained(tmp_path / "few", mixed, shots=1)
    losses = [entry["loss"] for entry in outcome.history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert weights != pa_sft_trained(tmp_path / "none", mixed)[0]


def test_sc_grpo_keeps_each_prompts_images_in_order_where_it_shuffles_and_splits(
    mixed: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    generated: list[tuple[list[Sample], dict[str, Any]]] = []
    learned: list[dict[str, Any]] = []
    score, loss = GRPOTrainer._generate_and_score_completions, GRPOTrainer._compute_loss

    def scoring(self: Any, inputs: list[dict[str, Any]]) -> Any:
        output = score(self, inputs)
        generated.append(([Sample.from_json(row["sample"]) for row in inputs], dict(output)))
        return output

    def learning(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        learned.append(dict(inputs))
        return loss(self, model, inputs)

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", scoring)
    monkeypatch.setattr(GRPOTrainer, "_compute_loss", learning)
    keys = {
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "max_completion_length": 4,
        "disable_tqdm": True,
    }
    job = sc_grpo.Job(keys, tiny_backbone(), SIDE * SIDE, (), 0, tmp_path / "checkpoints", tmp_path / "model")
    sc_grpo.train(job, mixed[:6], validation=[], preset="paper", rewards=REWARDS, grid=3, shots=1)

    def images(batch: dict[str, Any]) -> list[tuple[str, ...]]:
        return images_in(batch["pixel_values"], batch["image_grid_thw"], list(batch["num_images"]), mixed)

    assert {len(names) for _, batch in generated for names in images(batch)} == {1, 2}
    for asked, batch in generated:
        assert images(batch) == [shown(sample) for sample in asked]
    token = backbones.load_processor(tiny_backbone(), max_pixels=None).image_token_id
    tokens = {shown(sample): image_tokens(sample) for sample in mixed}
    assert len(learned) == 4
    for batch in learned:
        assert (batch["prompt_ids"] == token).sum(1).tolist() == [tokens[names] for names in images(batch)]
