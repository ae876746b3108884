"""The vision-language models that can be trained: one record a family, resolved from the model type in `config.json`, never from a path."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from iadr1.errors import ModelError

PARTS = ("vision", "projector", "language")
PACKED = "packed_flash_sdpa"


@dataclass(frozen=True, slots=True)
class Backbone:
    """A model family: where its parts lie (prefixes of parameter names), and what its image processor can do."""

    model_type: str
    vision: tuple[str, ...]
    projector: tuple[str, ...]
    language: tuple[str, ...]
    packs_images: bool = False
    limits_pixels: bool = False

    def part(self, parameter: str) -> str:
        """The part that a parameter belongs to: the longest prefix decides, since a projector may lie inside the vision tower."""
        owners = {prefix: name for name in PARTS for prefix in getattr(self, name) if parameter.startswith(prefix)}
        return owners[max(owners, key=len)] if owners else "language"


_QWEN = Backbone(
    "qwen2_5_vl",
    vision=("model.visual.",),
    projector=("model.visual.merger.",),
    language=("model.language_model.", "lm_head."),
    packs_images=True,
    limits_pixels=True,
)
_LLAVA_ONEVISION = Backbone(
    "llava_onevision",
    vision=("model.vision_tower.",),
    projector=("model.multi_modal_projector.", "model.image_newline"),
    language=("model.language_model.", "lm_head."),
)
BACKBONES = {record.model_type: record for record in (_QWEN, replace(_QWEN, model_type="qwen2_vl"), _LLAVA_ONEVISION)}


def backbone_of(folder: Path) -> Backbone:
    """The record for a model folder; raises ModelError when the folder holds no model that can be used."""
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"{folder}: no model here (config.json is missing). Name a folder that a model was saved to.")
    if not any(folder.glob("*.safetensors")):
        others = sorted(path.name for path in folder.glob("*.bin")) or "no weights at all"
        raise ModelError(f"{folder}: no safetensors weights; found {others}. Save the model again with `save_pretrained`.")
    found = _json(config).get("model_type")
    if found not in BACKBONES:
        raise ModelError(f"{config}: model type {found!r} is not supported; known: {', '.join(sorted(BACKBONES))}.")
    return BACKBONES[found]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error}). Restore the model folder.") from error
    return content if isinstance(content, dict) else {}


def load_processor(folder: Path, *, max_pixels: int | None = None) -> Any:
    """Tokenizer and image processor of a model folder, with images limited to `max_pixels` where the family can do so."""
    from transformers import AutoProcessor

    record = backbone_of(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no processor can be loaded ({_first_line(error)}). Save it beside the weights.") from error
    processor.chat_template = processor.chat_template or getattr(processor.tokenizer, "chat_template", None)
    if processor.chat_template is None:
        raise ModelError(f"{folder}: neither processor nor tokenizer has a chat template. Add chat_template.jinja to the folder.")
    if max_pixels is not None:
        _limit_pixels(processor, record, max_pixels)
    return processor


def _limit_pixels(processor: Any, record: Backbone, max_pixels: int) -> None:
    if not record.limits_pixels:
        raise ModelError(f"max_pixels: {record.model_type} scales images to fixed sizes and has no such limit. Set it to null.")
    limits = processor.image_processor.size
    floor = min(limits["shortest_edge"], max_pixels)
    processor.image_processor.size = {"shortest_edge": floor, "longest_edge": max_pixels}


def load_model(folder: Path, **options: Any) -> Any:
    """The model of a folder, in evaluation mode; `options` go to `from_pretrained`."""
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    backbone_of(folder)
    safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    try:
        model = AutoModelForImageTextToText.from_pretrained(folder, **(attention_choice() | options), **safe)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}: the weights cannot be read ({_first_line(error)}). Restore the folder.") from error
    pack_images(model)
    return model


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def attention_choice() -> dict[str, Any]:
    """FlashAttention where a GPU and the package are there, in bfloat16; else PyTorch's own attention in float32."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    if not torch.cuda.is_available():
        return {"dtype": torch.float32, "attn_implementation": "sdpa"}
    flash = is_flash_attn_2_available()
    return {"dtype": torch.bfloat16, "attn_implementation": "flash_attention_2" if flash else "sdpa"}


def pack_images(model: Any) -> None:
    """Let the vision tower attend within all images of a batch at once, where it would else loop over them.

    Without FlashAttention the Qwen towers split the batch by image and call the attention once an image. Ours takes the same
    packed arguments as FlashAttention does and computes images of equal length as one batch; the results are the same.
    """
    from transformers import AttentionInterface

    record = BACKBONES.get(model.config.model_type)
    if record is None or not record.packs_images or model.config.vision_config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(PACKED, _packed_attention)
    model.set_attn_implementation({"vision_config": PACKED})


def _packed_attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, **options: Any) -> tuple[Any, None]:
    """Attention of [1, heads, all tokens, size] tensors within the segments of `cu_seq_lens_q`, as [1, all tokens, heads, size]."""
    import torch

    bounds = options["cu_seq_lens_q"].tolist()
    lengths = [end - start for start, end in pairwise(bounds)]
    packed = torch.stack([tensor[0].transpose(0, 1) for tensor in (query, key, value)])
    if len(set(lengths)) == 1:
        return _attend(packed, lengths[0], options["scaling"])[None], None
    mixed = [_attend(piece, piece.shape[1], options["scaling"]) for piece in packed.split(lengths, dim=1)]
    return torch.cat(mixed)[None], None


def _attend(packed: Any, length: int, scaling: float) -> Any:
    from torch.nn.functional import scaled_dot_product_attention

    _, tokens, heads, size = packed.shape
    query, key, value = packed.reshape(3, tokens // length, length, heads, size).transpose(2, 3)
    return scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2).reshape(tokens, heads, size)


def freeze(model: Any, names: Iterable[str]) -> None:
    """Keep the named parts (vision, projector, language) as they are during training."""
    record = BACKBONES[model.config.model_type]
    names = set(names)
    if unknown := names - set(PARTS):
        raise ModelError(f"freeze: {', '.join(sorted(unknown))} is no part of a model; the parts are {', '.join(PARTS)}.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(record.part(name) not in names)


def part_sizes(model: Any) -> dict[str, dict[str, int]]:
    """How many parameters each part has and how many of them are trained."""
    record = BACKBONES[model.config.model_type]
    sizes = {part: {"parameters": 0, "trained": 0} for part in PARTS}
    for name, parameter in model.named_parameters():
        part = sizes[record.part(name)]
        part["parameters"] += parameter.numel()
        part["trained"] += parameter.numel() * parameter.requires_grad
    return sizes


def save(model: Any, processor: Any, folder: Path) -> None:
    """Save weights (safetensors), configuration and processor, readable by everyone."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for path in folder.rglob("*"):
        # transformers writes the weights with mode 0600, which breaks shared caches.
        path.chmod(0o755 if path.is_dir() else 0o644)
