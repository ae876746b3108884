"""The small backbone: its own patches are those of the processor, its chats learn answers only, and the shipped files are whole."""

from pathlib import Path

import numpy as np
import pytest

from iadr1 import small_backbone
from iadr1.picture_book import picture, questions
from iadr1.synthetic import SIDE

SHIPPED = Path("backbones/small")


@pytest.fixture(scope="module")
def tokenizer():
    pages = [picture(np.random.default_rng(seed)) for seed in range(20)]
    texts = [" ".join(pair) for page in pages for pair in questions(page, np.random.default_rng(0))]
    return small_backbone.train_tokenizer(texts, size=700)


def test_every_text_survives_the_tokenizer(tokenizer) -> None:
    for text in (
        "<think>a line.</think><location>top left</location><type>crack</type><answer>Yes</answer>",
        "Größe 3 µm, 缺陷?",
        "  two  spaces\n",
    ):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_patches_are_those_of_the_processor(tokenizer) -> None:
    import torch
    from PIL import Image

    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    processor = small_backbone.processor_of(tokenizer)
    text = ["<|vision_start|><|image_pad|><|vision_end|>"] * 2
    read = processor(text=text, images=[Image.fromarray(image) for image in images], return_tensors="pt")
    assert torch.allclose(read["pixel_values"], small_backbone.patches(torch.tensor(images)), atol=1e-5)
    assert read["image_grid_thw"].tolist() == small_backbone.grids(2).tolist()


def test_attention_over_equal_images_is_attention_over_each(tokenizer) -> None:
    import torch

    torch.manual_seed(0)
    tower = (model := small_backbone.build(tokenizer)).model.visual
    images = torch.randint(0, 256, (3, SIDE, SIDE, 3), dtype=torch.uint8)
    with torch.no_grad():
        one_by_one = tower(small_backbone.patches(images), grid_thw=small_backbone.grids(3)).pooler_output
        small_backbone.use_batched_attention(model)
        together = tower(small_backbone.patches(images), grid_thw=small_backbone.grids(3)).pooler_output
    assert torch.allclose(one_by_one, together, atol=1e-4)


def test_a_chat_learns_its_answers_and_nothing_else(tokenizer) -> None:
    page = picture(np.random.default_rng(5))
    chat = small_backbone.conversation(page, tokenizer, np.random.default_rng(0))
    learned = tokenizer.decode([token for token, label in zip(chat.ids, chat.labels, strict=True) if label != -100])
    answers = [answer for seed in range(50) for _, answer in questions(page, np.random.default_rng(seed))]
    assert [text in answers for text in learned.split("<|im_end|>") if text] == [True, True]
    assert all(label in (-100, token) for token, label in zip(chat.ids, chat.labels, strict=True))


def test_the_shipped_backbone_is_small_safe_and_described() -> None:
    weights = SHIPPED / "model.safetensors"
    assert weights.stat().st_size <= 12 * 2**20
    assert not [path.name for path in SHIPPED.iterdir() if path.suffix in {".bin", ".pt", ".pkl"}]
    assert "defect" in (SHIPPED / "README.md").read_text(encoding="utf-8")
