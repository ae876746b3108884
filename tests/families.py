"""A tiny member of every family: the classes, the layout on disk and the traits of the chat templates of published models, with random weights."""

import atexit
import functools
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import tiny

WIDTH, DEPTH, HEADS = 64, 2, 2
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VICUNA = ("<unk>", "<s>", "</s>", "<pad>", "<image>")

# What the published templates do, in fewer words. LLaVA's show all images before all text.
_IMAGES = "{% for part in message['content'] if part['type'] == 'image' %}<image>@{% endfor %}"
_TEXTS = "{% for part in message['content'] if part['type'] == 'text' %}@{% endfor %}"
ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    + _IMAGES.replace("@", "")
    + _TEXTS.replace("@", "{{ '\n' + part['text'] }}")
    # The assistant's turn starts with "assistant \n", the generation prompt with "assistant\n".
    + "<|im_end|>{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VICUNA_TEMPLATE = (
    # No BOS, and no EOS after the assistant's turn.
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    + _IMAGES.replace("@", "{{ '\n' }}")
    + _TEXTS.replace("@", "{{ part['text'] + ' ' }}")
    + "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    + _IMAGES.replace("@", "{{ '\n' }}")
    + _TEXTS.replace("@", "{{ part['text'] }}")
    # The published one says <\s>, which is no token.
    + "{{ ' [/INST]' }}{% else %}{{ ' ' + message['content'][0]['text'] + '<\\\\s> ' }}{% endif %}{% endfor %}"
)
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
INTERNVL_TEMPLATE = tiny.TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")


@dataclass(frozen=True)
class Family:
    """How to build a tiny member, and what its weights are called on disk."""

    model: Callable[[Any], Any]
    processor: Callable[[Any], Any]
    special: Sequence[str]
    template: str
    eos: str
    published: str  # a regular expression for every name in a published checkpoint's safetensors
    pad: str = "<|endoftext|>"
    bos: str | None = None
    named: dict[str, str] = field(default_factory=dict)
    renamed: tuple[tuple[str, str], ...] = ()  # from the names of a model made from scratch to the published ones


@functools.cache
def member(model_type: str) -> Path:
    """The folder of the tiny member of a family, made at the first call and removed when the process ends."""
    folder = temporary_folder()
    build(FAMILIES[model_type], folder)
    return folder


def temporary_folder() -> Path:
    """A folder that is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="iadr1-family-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def build(family: Family, folder: Path, *, seed: int = 0) -> None:
    """Save a member of random weights in the layout of the published checkpoints."""
    import torch

    tokenizer = tiny.tokenizer(family.special, named=family.named, template=family.template, eos=family.eos, pad=family.pad, bos=family.bos)
    torch.manual_seed(seed)
    model = family.model(tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    family.processor(tokenizer).save_pretrained(folder)
    _rename(folder / "model.safetensors", family.renamed)


def names_on_disk(folder: Path) -> list[str]:
    """The names of all tensors of a model folder."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        return sorted(weights.keys())


def _rename(file: Path, renamed: Sequence[tuple[str, str]]) -> None:
    from safetensors.torch import load_file, save_file

    # Larger weights than those of a fresh model, so that different images get different answers.
    weights = {name: tensor * 9 if tensor.ndim > 1 else tensor for name, tensor in load_file(file).items()}
    for pattern, name in renamed:
        weights = {re.sub(pattern, name, key): tensor for key, tensor in weights.items()}
    save_file(weights, file, metadata={"format": "pt"})


def _text(tokenizer: Any, **others: Any) -> dict[str, Any]:
    return {
        "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "vocab_size": len(tokenizer), "max_position_embeddings": 1024,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    } | others  # fmt: skip


def _tower(**others: Any) -> dict[str, Any]:
    return {
        "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS,
        "image_size": 28, "patch_size": 14,
    } | others  # fmt: skip


def _llava(tokenizer: Any) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_tower(projection_dim=WIDTH)),
        text_config=LlamaConfig(**_text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    return LlavaForConditionalGeneration(config)


def _llava_processor(tokenizer: Any) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


PINPOINTS = [[28, 56], [56, 28], [56, 56]]


def _llava_next(tokenizer: Any) -> Any:
    from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaNextForConditionalGeneration, MistralConfig

    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**_tower(projection_dim=WIDTH)),
        text_config=MistralConfig(**_text(tokenizer, sliding_window=None)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=4,
    )
    return LlavaNextForConditionalGeneration(config)


def _llava_next_processor(tokenizer: Any) -> Any:
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    images = LlavaNextImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=PINPOINTS)
    return LlavaNextProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _llava_onevision(tokenizer: Any) -> Any:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**_tower(vision_use_head=False)),
        text_config=Qwen2Config(**_text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[28, 28], *PINPOINTS],
        tie_word_embeddings=False,
    )
    return LlavaOnevisionForConditionalGeneration(config)


def _llava_onevision_processor(tokenizer: Any) -> Any:
    from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

    size = {"height": 28, "width": 28}
    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[28, 28], *PINPOINTS]),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
    )


def _qwen_ids(tokenizer: Any) -> dict[str, Any]:
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>", "vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()} | {"tie_word_embeddings": True}


def _qwen2_vl(tokenizer: Any) -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    vision = {"depth": DEPTH, "embed_dim": WIDTH, "hidden_size": WIDTH, "num_heads": HEADS, "mlp_ratio": 2, "patch_size": 12}
    text = _text(tokenizer, rope_parameters=rope, tie_word_embeddings=True)
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **_qwen_ids(tokenizer)))


def _qwen2_5_vl(tokenizer: Any) -> Any:
    return tiny.model(tokenizer, width=WIDTH, depth=DEPTH)


def _qwen3_vl(tokenizer: Any) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    vision = {
        "depth": DEPTH, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_heads": HEADS, "out_hidden_size": WIDTH, "patch_size": 12,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    text = _text(tokenizer, rope_parameters=rope, tie_word_embeddings=True, head_dim=WIDTH // HEADS)
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **_qwen_ids(tokenizer)))


def _qwen_processor(name: str) -> Callable[[Any], Any]:
    def processor(tokenizer: Any) -> Any:
        import transformers

        sizes = {"patch_size": 12, "merge_size": 2, "temporal_patch_size": 2, "size": {"shortest_edge": 24 * 24, "longest_edge": 96 * 96}}
        videos = transformers.Qwen3VLVideoProcessor if "3VL" in name else transformers.Qwen2VLVideoProcessor
        return getattr(transformers, name)(
            image_processor=transformers.Qwen2VLImageProcessor(**sizes),
            video_processor=videos(**sizes),
            tokenizer=tokenizer,
            chat_template=tokenizer.chat_template,
        )

    return processor


def _internvl(tokenizer: Any) -> Any:
    from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2Config

    config = InternVLConfig(
        vision_config=_tower(image_size=[56, 56], patch_size=[14, 14], attention_bias=True),
        text_config=Qwen2Config(**_text(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    return InternVLForConditionalGeneration(config)


def _internvl_processor(tokenizer: Any) -> Any:
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    size = {"height": 56, "width": 56}
    return InternVLProcessor(
        GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=4),
        tokenizer,
        InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=tokenizer.chat_template,
    )


def _smolvlm(tokenizer: Any) -> Any:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    config = SmolVLMConfig(
        vision_config=_tower(image_size=56),
        text_config=_text(tokenizer, model_type="llama"),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
    )
    return SmolVLMForConditionalGeneration(config)


def _smolvlm_processor(tokenizer: Any) -> Any:
    from transformers import SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    edge, tile = {"longest_edge": 112}, {"longest_edge": 56}
    return SmolVLMProcessor(
        SmolVLMImageProcessor(size=edge, max_image_size=tile, do_image_splitting=True),
        tokenizer,
        SmolVLMVideoProcessor(size=edge, max_image_size=tile, video_sampling={"max_frames": 4, "fps": 1, "video_size": edge}),
        image_seq_len=4,
        chat_template=tokenizer.chat_template,
    )


_LAYER = r"layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj|(input|post_attention)_layernorm)\."
_LLAMA = rf"language_model\.(lm_head|model\.(embed_tokens|norm|{_LAYER[:-2]}))\."
_PUBLISHED_LLAVA = (
    rf"{_LLAMA}|multi_modal_projector\.linear_[12]\.|vision_tower\.vision_model\.(embeddings|encoder\.layers|pre_layrnorm|post_layernorm)\."
)
_PUBLISHED_QWEN = rf"model\.(embed_tokens|norm|{_LAYER[:-2]})\.|visual\.(patch_embed\.proj|blocks\.\d+|merger)\."
_SCRATCH_TOWER = ((r"^vision_tower\.(?!vision_model)", "vision_tower.vision_model."),)
_QWEN_NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
_QWEN = {"special": tiny.SPECIAL, "template": tiny.TEMPLATE, "eos": "<|im_end|>", "named": _QWEN_NAMED}
_SMOLVLM_TILES = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]

FAMILIES = {
    "llava": Family(
        _llava, _llava_processor, VICUNA, VICUNA_TEMPLATE, "</s>", _PUBLISHED_LLAVA, "<pad>", "<s>", {"image_token": "<image>"}, _SCRATCH_TOWER
    ),
    "llava_next": Family(
        _llava_next, _llava_next_processor, VICUNA, MISTRAL_TEMPLATE, "</s>", rf"image_newline|{_PUBLISHED_LLAVA}", "<pad>", "<s>",
        {"image_token": "<image>"}, _SCRATCH_TOWER,
    ),
    "llava_onevision": Family(
        _llava_onevision, _llava_onevision_processor, (*CHATML, "<image>", "<video>"), ONEVISION_TEMPLATE, "<|im_end|>",
        rf"image_newline|{_PUBLISHED_LLAVA}", named={"image_token": "<image>", "video_token": "<video>"}, renamed=_SCRATCH_TOWER,
    ),
    "qwen2_vl": Family(_qwen2_vl, _qwen_processor("Qwen2VLProcessor"), published=_PUBLISHED_QWEN, **_QWEN),
    "qwen2_5_vl": Family(_qwen2_5_vl, _qwen_processor("Qwen2_5_VLProcessor"), published=_PUBLISHED_QWEN, **_QWEN),
    "qwen3_vl": Family(
        _qwen3_vl,
        _qwen_processor("Qwen3VLProcessor"),
        published=r"model\.(language_model\.(embed_tokens|norm|layers)|visual\.(patch_embed|pos_embed|blocks|merger|deepstack_merger_list))\.",
        **_QWEN,
    ),
    "internvl": Family(
        _internvl, _internvl_processor, (*CHATML, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"), INTERNVL_TEMPLATE, "<|im_end|>",
        rf"{_LLAMA}|multi_modal_projector\.(layer_norm|linear_[12])\.|vision_tower\.(embeddings|encoder\.layer|layernorm)\b",
        named={
            "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
        },
    ),
    "smolvlm": Family(
        _smolvlm, _smolvlm_processor,
        (*CHATML, "<image>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>", *_SMOLVLM_TILES), SMOLVLM_TEMPLATE,
        "<end_of_utterance>", r"lm_head\.|model\.(text_model\.|vision_model\.|connector\.modality_projection\.proj\.)",
        named={
            "image_token": "<image>", "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    ),
}  # fmt: skip
