"""The small backbone: a Qwen2.5-VL of about two million parameters, its tokenizer and processor, and how it is taught to see.

`build()` makes it with random weights; `tower_loss` teaches the vision tower directly (which figure is in which cell, which shape, surface and colour),
`conversation_loss` teaches tower and language model together to answer general questions. `tasks/_backbone.py` runs both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iadr1 import drawing
from iadr1.figures import FIGURES
from iadr1.invented import BODIES, COLOURS
from iadr1.picture_book import Picture, questions
from iadr1.synthetic import SIDE

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast, ProcessorMixin, Qwen2_5_VLForConditionalGeneration

PATCH, MERGE = 8, 2
CELLS = SIDE // (PATCH * MERGE)  # image tokens along one side
TAGS = [f"<{end}{tag}>" for tag in ("think", "location", "type", "answer") for end in ("", "/")]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, size: int = 1024) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer with Qwen's control tokens; the tags of a verdict are single tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size - len(TAGS), special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    )
    bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE, padding_side="left",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    )  # fmt: skip


def processor_of(tokenizer: "PreTrainedTokenizerFast") -> "ProcessorMixin":
    """Qwen2.5-VL's processor for this patch size; `max_pixels` of a run may be set higher."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    shape: dict[str, Any] = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
    pixels = {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": SIDE * SIDE}
    images, videos = Qwen2VLImageProcessor(**shape, size=pixels), Qwen2VLVideoProcessor(**shape, size=pixels)
    return Qwen2_5_VLProcessor(image_processor=images, tokenizer=tokenizer, video_processor=videos, chat_template=TEMPLATE)


def build(
    tokenizer: "PreTrainedTokenizerFast", *, width: int = 128, depth: int = 4, tower_depth: int = 4
) -> "Qwen2_5_VLForConditionalGeneration":
    """The model with random weights; heads are 32 wide, all tower layers attend over the whole image."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    ends = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    text = {
        "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": depth, "num_attention_heads": width // 32,
        "num_key_value_heads": width // 32, "vocab_size": len(tokenizer), "max_position_embeddings": 4096, "tie_word_embeddings": True,
        "initializer_range": 0.05, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}, **ends,
    }  # fmt: skip
    vision = {
        "hidden_size": width, "intermediate_size": 2 * width, "depth": tower_depth, "num_heads": width // 32, "out_hidden_size": width,
        "patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": 2, "window_size": 8 * PATCH * MERGE,
        "fullatt_block_indexes": list(range(tower_depth)), "tokens_per_second": 2, "initializer_range": 0.08,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"], **ends,
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config)


# --- pages as arrays ------------------------------------------------------------------------------------------------------------------------------


def figure_map(page: Picture) -> np.ndarray:
    """bool [CELLS, CELLS, figures]: which figure covers at least 4 % of which image token."""
    found = np.zeros((CELLS, CELLS, len(FIGURES)), bool)
    names = list(FIGURES)
    for (name, _), cover in zip(page.figures, page.covers, strict=True):
        share = cover.reshape(CELLS, SIDE // CELLS, CELLS, SIDE // CELLS).mean((1, 3))
        found[..., names.index(name)] |= (share > 0.04) | (share == share.max())
    return found


def page_labels(page: Picture) -> np.ndarray:
    """int64 [4]: index of body, surface, colour, and the number of figures."""
    bodies = ["nothing", *BODIES]
    return np.array(
        [bodies.index(page.body), list(drawing.SURFACES).index(page.surface), list(COLOURS).index(page.colour), len(page.figures)]
    )


def patches(images: "torch.Tensor") -> "torch.Tensor":
    """uint8 images [B, S, S, 3] as the tower's input [B * tokens * 4, 3 * 2 * PATCH * PATCH], equal to the processor's."""
    import torch

    batch = images.shape[0]
    pixels = (images.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    split = pixels.reshape(batch, CELLS, MERGE, PATCH, CELLS, MERGE, PATCH, 3).permute(0, 1, 4, 2, 5, 7, 3, 6)
    twice = split.unsqueeze(6).expand(*split.shape[:6], 2, PATCH, PATCH)
    return twice.reshape(batch * (SIDE // PATCH) ** 2, -1)


def grids(batch: int) -> "torch.Tensor":
    """image_grid_thw [B, 3] of whole pictures."""
    import torch

    return torch.tensor([[1, SIDE // PATCH, SIDE // PATCH]]).expand(batch, 3).contiguous()


def use_batched_attention(model: "Qwen2_5_VLForConditionalGeneration") -> None:
    """Let the tower attend over images of one size as a batch: transformers otherwise walks through them one by one."""
    from transformers import AttentionInterface

    AttentionInterface.register("flash_equal_lengths", _equal_lengths_attention)
    model.model.visual.config._attn_implementation = "flash_equal_lengths"


def _equal_lengths_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, scaling: float, cu_seq_lens_q: Any, **_: Any
) -> tuple[Any, None]:
    from torch.nn.functional import scaled_dot_product_attention

    _, heads, length, width = query.shape
    batch = len(cu_seq_lens_q) - 1
    q, k, v = (t.reshape(heads, batch, length // batch, width).transpose(0, 1) for t in (query, key, value))
    out = scaled_dot_product_attention(q, k, v, scale=scaling)  # [batch, heads, length, width]
    return out.transpose(1, 2).reshape(1, length, heads, width), None


# --- what is taught -------------------------------------------------------------------------------------------------------------------------------


def tower_heads(width: int) -> "torch.nn.ModuleDict":
    """The heads that teach the tower directly; they are not part of the backbone."""
    from torch import nn

    sizes = {
        "figures": len(FIGURES),
        "anything": 1,
        "position": CELLS**2,
        "body": len(BODIES) + 1,
        "surface": len(drawing.SURFACES),
        "colour": len(COLOURS),
        "count": 3,
    }
    return nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})


def tower_loss(
    features: "torch.Tensor", heads: "torch.nn.ModuleDict", maps: "torch.Tensor", labels: "torch.Tensor"
) -> tuple["torch.Tensor", dict[str, float]]:
    """Loss of the heads on image tokens [B, tokens, width]: each token names its figures, their mean names body, surface and colour, their peak the count."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    there = maps.amax(-1)
    names = binary_cross_entropy_with_logits(heads["figures"](features), maps, weight=1 + 4 * there[..., None])
    anything = heads["anything"](features)[..., 0]
    loss = 10 * names + binary_cross_entropy_with_logits(anything, there, pos_weight=torch.tensor(4.0))
    # The tower knows places only relative to one another; a language model this small cannot make «top left» of that by itself.
    own_cell = torch.arange(CELLS**2).expand(len(features), -1)
    loss = loss + cross_entropy(heads["position"](features).flatten(0, 1), own_cell.flatten())
    mean, peak = features.mean(1), features.amax(1)
    for index, (name, pooled) in enumerate((("body", mean), ("surface", mean), ("colour", mean), ("count", peak))):
        loss = loss + (1.0 if name == "count" else 0.4) * cross_entropy(heads[name](pooled), labels[:, index])
    said, some = heads["count"](peak.detach()).argmax(-1) > 0, labels[:, 3] > 0
    covered = there > 0
    named = (heads["figures"](features.detach()).argmax(-1)[covered] == maps[covered].argmax(-1)).float().mean()
    return loss, {
        "figures_seen": float((said[some].float().mean() + (~said[~some]).float().mean()) * 50),
        "figures_named": float(named * 100),
    }


@dataclass(frozen=True)
class Conversation:
    """Token ids and labels [T] of one picture and some questions about it; only answers are learned (-100 elsewhere)."""

    ids: Sequence[int]
    labels: Sequence[int]


def conversation(page: Picture, tokenizer: "PreTrainedTokenizerFast", rng: np.random.Generator, *, turns: int = 2) -> Conversation:
    """The description or some other questions about one page as one chat, the picture before the first question."""
    asked = questions(page, rng)
    chosen = [asked[k] for k in rng.permutation(len(asked))[:turns]]
    if rng.random() < 0.6 and asked[0] not in chosen:
        chosen = [asked[0], *chosen[: turns - 1]]
    ids: list[int] = []
    labels: list[int] = []
    encode = tokenizer.backend_tokenizer.encode
    image = "<|vision_start|>" + "<|image_pad|>" * CELLS**2 + "<|vision_end|>"
    for question, answer in chosen:
        ask = encode(f"<|im_start|>user\n{image}{question}<|im_end|>\n<|im_start|>assistant\n").ids
        say, after = encode(f"{answer}<|im_end|>").ids, encode("\n").ids
        ids += [*ask, *say, *after]
        labels += [*([-100] * len(ask)), *say, *([-100] * len(after))]
        image = ""
    return Conversation(ids, labels)


def save(model: "Qwen2_5_VLForConditionalGeneration", processor: "ProcessorMixin", into: Path) -> None:
    """Weights as safetensors, tokenizer and processor beside them."""
    model.model.visual.config._attn_implementation = "sdpa"
    model.generation_config.update(eos_token_id=model.config.text_config.eos_token_id, pad_token_id=model.config.text_config.pad_token_id)
    model.save_pretrained(into)
    processor.save_pretrained(into)
