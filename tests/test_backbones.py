"""Families by model type, parts and their freezing, loading and saving, and the packed attention of the vision tower."""

import json
import shutil
from pathlib import Path

import pytest

from iadr1 import backbones
from iadr1.errors import ModelError
from iadr1.images import open_image
from tests.tiny import tiny_backbone, tiny_samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoiled."""
    return Path(shutil.copytree(tiny_backbone(), tmp_path / "model"))


def change_type(folder: Path, name: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": name}))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: (folder / "config.json").unlink(), r"no model here \(config.json is missing\)"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no safetensors weights; found no weights at all"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), r"found \['pytorch_model.bin'\]"),
        (lambda folder: change_type(folder, "gpt2"), "model type 'gpt2' is not supported; known: internvl, llava, llava_next, "),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08" + b"\0" * 40), "the weights cannot be read"),
    ],
)
def test_a_folder_that_holds_no_usable_model_says_so(folder: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        backbones.load_model(folder)


def test_a_folder_without_chat_template_says_so(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="neither processor nor tokenizer has a chat template"):
        backbones.load_processor(folder)


def test_images_are_limited_to_max_pixels() -> None:
    processor = backbones.load_processor(tiny_backbone(), max_pixels=48 * 48)
    assert processor.image_processor.size["longest_edge"] == 48 * 48


@pytest.mark.parametrize(
    "frozen, trained",
    [
        ([], {"vision", "projector", "language"}),
        (["vision"], {"projector", "language"}),
        (["vision", "projector"], {"language"}),
        (["language"], {"vision", "projector"}),
    ],
)
def test_freezing_a_part_leaves_exactly_the_others_to_train(frozen: list[str], trained: set[str]) -> None:
    model = backbones.load_model(tiny_backbone())
    backbones.freeze(model, frozen)
    sizes = backbones.part_sizes(model)
    assert {part for part, size in sizes.items() if size["trained"] == size["parameters"]} == trained
    assert all(size["trained"] == 0 for part, size in sizes.items() if part not in trained)
    assert sum(size["parameters"] for size in sizes.values()) == sum(parameter.numel() for parameter in model.parameters())


def test_an_unknown_part_cannot_be_frozen() -> None:
    with pytest.raises(ModelError, match="freeze: head is no part of a model; the parts are vision, projector, language"):
        backbones.freeze(backbones.load_model(tiny_backbone()), ["head"])


@pytest.mark.parametrize("sides", [(48, 48, 48), (48, 96, 48)])
def test_packed_images_give_the_vision_tower_the_same_features(tmp_path: Path, sides: tuple[int, ...]) -> None:
    import torch

    model, processor = backbones.load_model(tiny_backbone()), backbones.load_processor(tiny_backbone())
    assert model.config.vision_config._attn_implementation == backbones.PACKED
    images = [open_image(tiny_samples(tmp_path, 1, side=side)[0].images[0]) for side in sides]
    inputs = processor.image_processor(images=images, return_tensors="pt")
    packed = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
    model.set_attn_implementation({"vision_config": "sdpa"})
    looped = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
    assert torch.allclose(packed, looped, atol=1e-6)


def test_a_saved_model_is_readable_by_all_and_loads_the_same(tmp_path: Path) -> None:
    import torch

    model, processor = backbones.load_model(tiny_backbone()), backbones.load_processor(tiny_backbone())
    backbones.save(model, processor, tmp_path / "saved")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "saved").iterdir()} == {0o644}
    again = backbones.load_model(tmp_path / "saved")
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == (tiny_backbone() / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "family, parameter, part",
    [
        ("qwen2_5_vl", "model.visual.blocks.0.attn.qkv.weight", "vision"),
        ("qwen2_5_vl", "model.visual.merger.mlp.0.weight", "projector"),
        ("qwen2_vl", "model.language_model.norm.weight", "language"),
        ("llava_onevision", "model.vision_tower.encoder.layers.0.mlp.fc1.weight", "vision"),
        ("llava_onevision", "model.image_newline", "projector"),
        ("qwen3_vl", "model.visual.deepstack_merger_list.0.norm.weight", "projector"),
        ("smolvlm", "model.connector.modality_projection.proj.weight", "projector"),
        ("llava_onevision", "lm_head.weight", "language"),
    ],
)
def test_a_parameter_belongs_to_the_part_with_the_longest_prefix(family: str, parameter: str, part: str) -> None:
    assert backbones.BACKBONES[family].part(parameter) == part
