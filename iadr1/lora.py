"""LoRA instead of full training: adapters on the linear layers of the parts that are not frozen, merged into the weights at the end.

With `quantized: nf4` (QLoRA, Dettmers et al. 2023) the weights below the adapters are held in 4 bits.
"""

import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from iadr1 import backbones, sharding
from iadr1.errors import ParamsError

# Our own key among PEFT's.
QUANTIZED = "quantized"
KINDS = ("nf4", "fp4")


def skeleton(folder: Path) -> Any:
    """The model of a folder without its weights: names and shapes only, in no memory."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    backbones.backbone_of(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"), sharding.unsharded():
        return AutoModelForImageTextToText.from_config(config)


def peft_config(keys: Mapping[str, Any], model: Path, *, freeze: Collection[str], section: str) -> Any:
    """PEFT's configuration from the keys of `lora`, None for full training; raises ParamsError for keys that PEFT refuses."""
    if not keys:
        return None
    from peft import LoraConfig

    targets = {} if "target_modules" in keys else {"target_modules": _targets(skeleton(model), freeze)}
    try:
        return LoraConfig(**(targets | {key: value for key, value in keys.items() if key != QUANTIZED}))
    except (TypeError, ValueError) as error:
        raise ParamsError(f"params.yaml: {section}.lora: LoraConfig refuses these keys: {error}") from error


def require_quantizable(keys: Mapping[str, Any], *, section: str) -> None:
    """Raise ParamsError when `quantized` is no kind of 4-bit number, or there is nothing that computes with them."""
    if (kind := keys.get(QUANTIZED, KINDS[0])) not in KINDS:
        raise ParamsError(
            f"params.yaml: {section}.lora.{QUANTIZED}: {kind!r} is not a kind of 4-bit number; take one of {', '.join(KINDS)}."
        )
    if QUANTIZED in keys and importlib.util.find_spec("bitsandbytes") is None:
        raise ParamsError(
            f"params.yaml: {section}.lora.{QUANTIZED}: the package bitsandbytes is not installed. Install the gpu extra, or remove the key."
        )


def quantization(keys: Mapping[str, Any]) -> Any:
    """How transformers loads the weights in 4 bits, None where they stay as they are."""
    if QUANTIZED not in keys:
        return None
    import torch
    from transformers import BitsAndBytesConfig

    computed = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=keys[QUANTIZED], bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=computed
    )


def quantized_bytes(text: Any, total: int, *, width: int) -> float:
    """The memory of `total` weights in 4 bits with their scales; the embeddings stay as they are, `width` bytes each."""
    whole = text.vocab_size * text.hidden_size * (1 if text.tie_word_embeddings else 2)
    return 0.52 * (total - whole) + width * whole


def merged(model: Any, folder: Path, keys: Mapping[str, Any], state: Mapping[str, Any] | None) -> Any:
    """The trained model with its adapters in its weights; `state` holds them where ZeRO-3 has cut the model into pieces.

    4-bit weights are written out before: merging into 4 bits would round the adapters away.
    """
    if state is None and QUANTIZED not in keys:
        return model.merge_and_unload()
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    adapters = get_peft_model_state_dict(model, state_dict=state)
    with sharding.unsharded():
        base = backbones.load_model(folder, dtype=model.config.dtype, quantization_config=quantization(keys))
        whole = get_peft_model(base.dequantize() if QUANTIZED in keys else base, model.peft_config["default"])
    set_peft_model_state_dict(whole, adapters)
    return whole.merge_and_unload()


def _targets(model: Any, freeze: Collection[str]) -> list[str]:
    """The linear layers of the parts that are trained, but not the output layer, which TRL computes by itself."""
    import torch

    record, output = backbones.BACKBONES[model.config.model_type], model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not output]
    return [name for name in linear if record.part(f"{name}.") not in freeze]
