"""What makes a training fast or small where the machine has it: attention, Liger's kernels, DeepSpeed, 4-bit weights; refused where it has not."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iadr1 import backbones, lora, sharding
from iadr1.errors import ParamsError


def require(keys: Mapping[str, Any], adapters: Mapping[str, Any], model: Path, *, section: str) -> None:
    """Raise ParamsError when the trainer's keys or those of `lora` want what this machine or the model's family does not have."""
    lora.require_quantizable(adapters, section=section)
    if keys.get("deepspeed"):
        sharding.require_usable(keys["deepspeed"], section=section, quantized=lora.QUANTIZED in adapters)
    if keys.get("use_liger_kernel"):
        _require_liger(model, section=section)


def _require_liger(model: Path, *, section: str) -> None:
    import torch

    name = f"params.yaml: {section}.use_liger_kernel"
    if importlib.util.find_spec("liger_kernel") is None:
        raise ParamsError(f"{name}: the package liger-kernel is not installed. Install the gpu extra, or remove the key.")
    if not torch.cuda.is_available():
        raise ParamsError(f"{name}: Liger's kernels need a GPU, and none is here. Remove the key.")
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN

    # Without this check such a model would train without the kernels, and nobody would know.
    if (family := backbones.backbone_of(model).model_type) not in KNOWN:
        able = ", ".join(sorted(backbones.BACKBONES.keys() & KNOWN.keys()))
        raise ParamsError(f"{name}: Liger has no kernels for {family}; it has some for {able}. Remove the key.")


def model_options(keys: Mapping[str, Any]) -> dict[str, Any]:
    """How the trainer loads its model: with the best attention there is for its precision, and what params.yaml says about it."""
    half = bool(keys.get("bf16") or keys.get("fp16"))
    return {"attn_implementation": backbones.attention(half=half)} | dict(keys.get("model_init_kwargs") or {})
