"""How large the published backbones are: sizes of their layers as their configurations state them, and what an image becomes in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What an image is taken for below; cameras of inspection lines are about this large.
IMAGE_SIDE, MAX_PIXELS = 1024, 480_000


@dataclass(frozen=True, slots=True)
class Shape:
    """A checkpoint's sizes. `text` and `vision` hold keys of transformers' configurations, `parameters` the counts of the parts.

    `image_tokens` are those that the language model reads for one image of 1024 x 1024 pixels (at most 480,000 pixels where the family has
    such a limit), `patches` those that the vision tower computes for it.
    """

    hub: str
    model_type: str
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    parameters: Mapping[str, int]
    image_tokens: int
    patches: int
    tied: bool = False

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())

    @property
    def computed(self) -> int:
        """The parameters of the language model that every token is multiplied with: all but a table of embeddings of its own."""
        table = self.text["vocab_size"] * self.text["hidden_size"]
        return self.parameters["language"] - (0 if self.tied else table)

    @property
    def cache_width(self) -> int:
        """Numbers that a token keeps in a layer's cache."""
        head = self.text.get("head_dim") or self.text["hidden_size"] // self.text["num_attention_heads"]
        return int(2 * head * self.text["num_key_value_heads"])


def _text(hidden: int, layers: int, heads: int, shared: int, inner: int, vocabulary: int, **others: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": shared,
        "intermediate_size": inner, "vocab_size": vocabulary, **others,
    }  # fmt: skip


def _tower(hidden: int, layers: int, heads: int, inner: int, side: int, patch: int, **others: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner, "image_size": side,
        "patch_size": patch, **others,
    }  # fmt: skip


_CLIP = _tower(1024, 24, 16, 4096, 336, 14, model_type="clip_vision_model", projection_dim=768)
_SIGLIP = _tower(1152, 26, 16, 4304, 384, 14, model_type="siglip_vision_model", vision_use_head=False)
_INTERN = {**_tower(1024, 24, 16, 4096, 448, 14, attention_bias=True), "image_size": [448, 448], "patch_size": [14, 14]}


def _qwen2_5_tower(hidden: int) -> dict[str, Any]:
    return {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "out_hidden_size": hidden, "patch_size": 14}


def _qwen3_tower(hidden: int) -> dict[str, Any]:
    return {
        "depth": 24, "hidden_size": 1024, "num_heads": 16, "intermediate_size": 4096, "out_hidden_size": hidden, "patch_size": 16,
        "deepstack_visual_indexes": [5, 11, 17],
    }  # fmt: skip


def _parts(vision: int, projector: int, language: int) -> dict[str, int]:
    return {"vision": vision, "projector": projector, "language": language}


SHAPES = (
    Shape(
        "llava-hf/llava-onevision-qwen2-0.5b-si-hf", "llava_onevision",
        _text(896, 24, 14, 2, 4864, 152_000, model_type="qwen2", tie_word_embeddings=True), _SIGLIP,
        _parts(397_747_744, 1_837_696, 494_090_112), image_tokens=7371, patches=7290, tied=True,
    ),
    Shape(
        "llava-hf/llava-onevision-qwen2-7b-si-hf", "llava_onevision", _text(3584, 28, 28, 4, 18_944, 152_128, model_type="qwen2"), _SIGLIP,
        _parts(397_747_744, 16_984_576, 7_616_075_264), image_tokens=7371, patches=7290,
    ),
    Shape(
        "Qwen/Qwen2-VL-2B-Instruct", "qwen2_vl", _text(1536, 28, 12, 2, 8960, 151_936),
        {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "hidden_size": 1536, "patch_size": 14},
        _parts(631_183_360, 34_087_936, 1_543_714_304), image_tokens=576, patches=2304, tied=True,
    ),
    Shape(
        "Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", _text(2048, 36, 16, 2, 11_008, 151_936), _qwen2_5_tower(2048),
        _parts(631_975_680, 36_708_608, 3_085_938_688), image_tokens=576, patches=2304, tied=True,
    ),
    Shape(
        "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", _text(3584, 28, 28, 4, 18_944, 152_064), _qwen2_5_tower(3584),
        _parts(631_975_680, 44_574_464, 7_615_616_512), image_tokens=576, patches=2304,
    ),
    Shape(
        "llava-hf/llava-1.5-7b-hf", "llava", _text(4096, 32, 32, 32, 11_008, 32_064, model_type="llama"), _CLIP,
        _parts(303_507_456, 20_979_712, 6_738_939_904), image_tokens=576, patches=577,
    ),
    Shape(
        "llava-hf/llava-v1.6-mistral-7b-hf", "llava_next", _text(4096, 32, 32, 8, 14_336, 32_064, model_type="mistral"), _CLIP,
        _parts(303_507_456, 20_983_808, 7_242_256_384), image_tokens=2928, patches=2885,
    ),
    Shape(
        "Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", _text(2048, 28, 16, 8, 6144, 151_936, head_dim=128), _qwen3_tower(2048),
        _parts(306_242_560, 100_714_496, 1_720_574_976), image_tokens=441, patches=1764, tied=True,
    ),
    Shape(
        "Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl", _text(2560, 36, 32, 8, 9728, 151_936, head_dim=128), _qwen3_tower(2560),
        _parts(306_242_560, 109_105_152, 4_022_468_096), image_tokens=441, patches=1764, tied=True,
    ),
    Shape(
        "OpenGVLab/InternVL3-1B-hf", "internvl", _text(896, 24, 14, 2, 4864, 151_674, model_type="qwen2"), _INTERN,
        _parts(304_012_288, 4_482_816, 629_697_920), image_tokens=2560, patches=10_250,
    ),
    Shape(
        "OpenGVLab/InternVL3-2B-hf", "internvl", _text(1536, 28, 12, 2, 8960, 151_674, model_type="qwen2"), _INTERN,
        _parts(304_012_288, 8_662_016, 1_776_283_136), image_tokens=2560, patches=10_250,
    ),
    Shape(
        "HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "smolvlm", _text(960, 32, 15, 5, 2560, 49_280, model_type="llama"),
        _tower(768, 12, 12, 3072, 512, 16), _parts(86_433_024, 11_796_480, 409_252_800), image_tokens=1088, patches=17_408,
    ),
)  # fmt: skip
