"""The vision-language models that can be trained: one record a family, resolved from the model type in `config.json`, never from a path."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from iadr1.errors import ModelError

PARTS = ("vision", "projector", "language")
PACKED = "packed_flash_sdpa"
# PEFT puts this before every name of a model that it wraps.
ADAPTED = "base_model.model."


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Published weights: their hub id, a commit of them (None where none could be confirmed), and what the paper does with them."""

    hub: str
    commit: str | None
    paper: Literal["trains", "evaluates", "neither"]

    @property
    def download(self) -> str:
        """The command that fetches the weights into a folder."""
        return f"hf download {self.hub} --revision {self.commit or '<commit>'} --local-dir models/{self.hub.rpartition('/')[2]}"


@dataclass(frozen=True, slots=True)
class Backbone:
    """A model family: where its parts lie (prefixes of parameter names), what its image processor can do, and its published weights.

    `counts_images`: the model must be told how many images each sample of a batch has. `vllm_images`: the most images of a prompt for
    which vLLM sees what transformers sees, None for any number.
    """

    model_type: str
    vision: tuple[str, ...]
    projector: tuple[str, ...]
    language: tuple[str, ...]
    packs_images: bool = False
    limits_pixels: bool = False
    counts_images: bool = False
    vllm_images: int | None = None
    checkpoints: tuple[Checkpoint, ...] = ()

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
    checkpoints=(
        Checkpoint("Qwen/Qwen2.5-VL-3B-Instruct", "66285546d2b821cf421d4f5eb2576359d3770cd3", "trains"),
        Checkpoint("Qwen/Qwen2.5-VL-7B-Instruct", "cc594898137f460bfe9f0759e9844b3ce807cfb5", "trains"),
        Checkpoint("Qwen/Qwen2.5-VL-72B-Instruct", "89c86200743eec961a297729e7990e8f2ddbc4c5", "evaluates"),
    ),
)
_LLAVA = Backbone(
    "llava",
    vision=("model.vision_tower.",),
    projector=("model.multi_modal_projector.", "model.image_newline"),
    language=("model.language_model.", "lm_head."),
    checkpoints=(
        Checkpoint("llava-hf/llava-1.5-7b-hf", "b234b804b114d9e37bb655e11cbbb5f5e971b7a9", "trains"),
        Checkpoint("llava-hf/llava-1.5-13b-hf", "5dda2880bda009266dda7c4baff660b95ca64540", "evaluates"),
    ),
)
_FAMILIES = (
    replace(
        _LLAVA,
        model_type="llava_onevision",
        counts_images=True,
        # transformers shows several images of a sample at low resolution each; vLLM 0.32 shows each one in tiles.
        vllm_images=1,
        checkpoints=(
            Checkpoint("llava-hf/llava-onevision-qwen2-0.5b-si-hf", None, "trains"),
            Checkpoint("llava-hf/llava-onevision-qwen2-7b-si-hf", None, "trains"),
        ),
    ),
    replace(
        _QWEN,
        model_type="qwen2_vl",
        checkpoints=(Checkpoint("Qwen/Qwen2-VL-2B-Instruct", "895c3a49bc3fa70a340399125c650a463535e71c", "trains"),),
    ),
    _QWEN,
    _LLAVA,
    replace(
        _LLAVA,
        model_type="llava_next",
        checkpoints=(
            Checkpoint("llava-hf/llava-v1.6-mistral-7b-hf", "52320fb52229c8d942b1dcb8b63b3dc8087bc83b", "trains"),
            Checkpoint("llava-hf/llava-v1.6-34b-hf", None, "evaluates"),
        ),
    ),
    replace(
        _QWEN,
        model_type="qwen3_vl",
        projector=("model.visual.merger.", "model.visual.deepstack_merger_list."),
        checkpoints=(
            Checkpoint("Qwen/Qwen3-VL-2B-Instruct", "89644892e4d85e24eaac8bacfd4f463576704203", "neither"),
            Checkpoint("Qwen/Qwen3-VL-4B-Instruct", "ebb281ec70b05090aa6165b016eac8ec08e71b17", "neither"),
        ),
    ),
    replace(
        _LLAVA,
        model_type="internvl",
        checkpoints=(
            Checkpoint("OpenGVLab/InternVL3-1B-hf", "014c0583a0d4bedf29fbe2dbff4f865eb998e171", "neither"),
            Checkpoint("OpenGVLab/InternVL3-2B-hf", "cb57a075cb75a2e6d1b668b128d48bb00ae321d2", "neither"),
        ),
    ),
    Backbone(
        "smolvlm",
        vision=("model.vision_model.",),
        projector=("model.connector.",),
        language=("model.text_model.", "lm_head."),
        checkpoints=(Checkpoint("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "7b375e1b73b11138ff12fe22c8f2822d8fe03467", "neither"),),
    ),
)
BACKBONES = {record.model_type: record for record in _FAMILIES}


def backbone_of(folder: Path) -> Backbone:
    """The record for a model folder; raises ModelError when the folder holds no model that can be used."""
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"{folder}: no model here (config.json is missing). {_where_from(folder)}")
    if not any(folder.glob("*.safetensors")):
        others = sorted(path.name for path in folder.glob("*.bin")) or "no weights at all"
        raise ModelError(f"{folder}: no safetensors weights; found {others}. Save the model again with `save_pretrained`.")
    found = _json(config).get("model_type")
    if found not in BACKBONES:
        raise ModelError(f"{config}: model type {found!r} is not supported; known: {', '.join(sorted(BACKBONES))}.")
    return BACKBONES[found]


def _where_from(folder: Path) -> str:
    known = [checkpoint for record in _FAMILIES for checkpoint in record.checkpoints if checkpoint.hub == str(folder)]
    if not known:
        return "Name a folder that a model was saved to; `iadr1 backbones` lists published ones."
    missing = "" if known[0].commit else " (take the commit from the model's page: none could be confirmed for this table)"
    return f"That is a hub id: fetch it with `{known[0].download}`{missing} and name that folder."


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
    processor.chat_template = _with_bos(processor)
    if max_pixels is not None:
        _limit_pixels(processor, record, max_pixels)
    return processor


def _with_bos(processor: Any) -> str:
    """The chat template, which writes the BOS where the tokenizer would put one.

    The tokenizers of LLaVA-1.5 and 1.6 put a BOS before a text, their templates write none: whoever tokenizes a written chat gets it or
    not, depending on an option. TRL, transformers and vLLM choose differently.
    """
    tokenizer, template = processor.tokenizer, str(processor.chat_template)
    adds_bos = tokenizer.bos_token is not None and tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    written = prompt_text(processor, [{"role": "user", "content": [{"type": "text", "text": "x"}]}])
    return "{{ bos_token }}" + template if adds_bos and not written.startswith(tokenizer.bos_token) else template


def prompt_text(processor: Any, chat: Sequence[Mapping[str, Any]]) -> str:
    """The chat as the model reads it, up to where its answer starts, with one placeholder for each image."""
    return str(processor.apply_chat_template(list(chat), add_generation_prompt=True, tokenize=False))


def completion_text(processor: Any, chat: Sequence[Mapping[str, Any]], answer: str) -> str:
    """What follows the prompt when the model gives this answer, with the token that ends it.

    That is the assistant's turn of the chat template, if it continues the prompt and ends. In LLaVA-1.5 and 1.6 it does not end, and in
    LLaVA-OneVision it starts otherwise than the generation prompt: a model trained on such turns would never stop, or see another prompt
    in training than later.
    """
    prompt, end = prompt_text(processor, chat), processor.tokenizer.eos_token
    turn = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    whole = str(processor.apply_chat_template([*chat, turn], tokenize=False))
    return whole.removeprefix(prompt) if whole.startswith(prompt) and end in whole.removeprefix(prompt) else answer + end


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
    """bfloat16 on a GPU, else float32, and the attention for that."""
    import torch

    half = torch.cuda.is_available()
    return {"dtype": torch.bfloat16 if half else torch.float32, "attn_implementation": attention(half=half)}


def attention(*, half: bool) -> str:
    """FlashAttention where a GPU and the package are there and it computes in 16 bits, which is all that it can; else PyTorch's own."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    return "flash_attention_2" if half and torch.cuda.is_available() and is_flash_attn_2_available() else "sdpa"


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
    """How many parameters each part has, adapters included, and how many of them are trained."""
    record = BACKBONES[model.config.model_type]
    sizes = {part: {"parameters": 0, "trained": 0} for part in PARTS}
    for name, parameter in model.named_parameters():
        part = sizes[record.part(name.removeprefix(ADAPTED))]
        part["parameters"] += count(parameter)
        part["trained"] += count(parameter) * parameter.requires_grad
    return sizes


def count(parameter: Any) -> int:
    """How many numbers a parameter has, also where this process holds a piece of it (ZeRO-3) or they are packed in 4 bits."""
    packed = getattr(parameter, "quant_state", None)
    return int(packed.shape.numel() if packed is not None else getattr(parameter, "ds_numel", parameter.numel()))


def save(model: Any, processor: Any, folder: Path, *, state: Mapping[str, Any] | None = None) -> None:
    """Save weights (safetensors; `state` in place of the model's own), configuration and processor, readable by everyone."""
    model.save_pretrained(folder, state_dict=state)
    processor.save_pretrained(folder)
    for path in folder.rglob("*"):
        # transformers writes the weights with mode 0600, which breaks shared caches.
        path.chmod(0o755 if path.is_dir() else 0o644)
