"""A tiny Qwen2.5-VL with tokenizer and processor, and tiny samples: real classes, random weights, built once a session."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from iadr1.samples import Sample

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
SIDE = 48  # pixels; patches of 12 merged 2 x 2 make 4 image tokens
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "Are there any defects in the query image? Please answer by yes or no.",
    "<think>A dark scratch runs across the top left.</think><location>top left</location><type>scratch</type><answer>Yes</answer>",
    "<think>The surface is even.</think><answer>No</answer>",
]


@functools.cache
def tiny_backbone() -> Path:
    """The folder of the tiny model, made at the first call and removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="iadr1-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build(folder)
    return folder


def build(folder: Path, *, width: int = 64, depth: int = 2, seed: int = 0, max_pixels: int = 96 * 96) -> None:
    """Save a Qwen2.5-VL of random weights with its processor."""
    import torch

    extra = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    }
    words = tokenizer(SPECIAL, named=extra, template=TEMPLATE, eos="<|im_end|>", pad="<|endoftext|>")
    torch.manual_seed(seed)
    network = model(words, width=width, depth=depth)
    network.generation_config.eos_token_id = words.eos_token_id
    network.generation_config.pad_token_id = words.pad_token_id
    network.save_pretrained(folder)
    _processor(words, max_pixels=max_pixels).save_pretrained(folder)


def tokenizer(special, *, named, template, eos, pad, bos=None):  # type: ignore[no-untyped-def]
    """A byte-level tokenizer of a few hundred tokens; with a BOS it puts that before every text, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet))
    if bos is not None:
        raw.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=eos, pad_token=pad, bos_token=bos, extra_special_tokens=named, chat_template=template
    )


def model(tokenizer, *, width: int, depth: int):  # type: ignore[no-untyped-def]
    """A Qwen2.5-VL of random weights."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    heads, ids = width // 32, tokenizer.convert_tokens_to_ids
    text = {
        "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": depth, "num_attention_heads": heads,
        "num_key_value_heads": heads, "vocab_size": len(tokenizer), "max_position_embeddings": 1024, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "depth": depth, "hidden_size": width, "intermediate_size": 2 * width, "num_heads": heads, "out_hidden_size": width,
        "patch_size": 12, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 512, "tokens_per_second": 2,
        "fullatt_block_indexes": list(range(depth)),
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"), tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config)


def _processor(tokenizer, *, max_pixels: int):  # type: ignore[no-untyped-def]
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    sizes = {"patch_size": 12, "merge_size": 2, "temporal_patch_size": 2}
    pixels = {"shortest_edge": 24 * 24, "longest_edge": max_pixels}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels, **sizes),
        video_processor=Qwen2VLVideoProcessor(size=pixels, **sizes),
        tokenizer=tokenizer,
        chat_template=TEMPLATE,
    )


def tiny_samples(folder: Path, count: int = 8, *, side: int = SIDE, dataset: str = "made") -> list[Sample]:
    """Grey plates, every second one with a dark square in the top left."""
    return [_sample(folder, number, side, dataset) for number in range(count)]


def _sample(folder: Path, number: int, side: int, dataset: str) -> Sample:
    import numpy as np
    from PIL import Image

    plate = np.random.default_rng(number).integers(120, 200, (side, side, 3), dtype=np.uint8)
    anomalous = number % 2 == 1
    if anomalous:
        plate[4:16, 4:16] = 10
    path = folder / f"{number:03}.png"
    Image.fromarray(plate).save(path)
    thought = "A dark scratch runs across the top left." if anomalous else "The surface is even."
    return Sample(
        id=f"{dataset}/{number:03}", dataset=dataset, category="plate", images=(str(path),), anomalous=anomalous, reasoning=thought,
        location="top left" if anomalous else None, type="scratch" if anomalous else None, visibility=0.2 if anomalous else None,
    )  # fmt: skip
