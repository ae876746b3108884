"""LoRA instead of full training: adapters on the linear layers of the parts that are not frozen, merged into the weights at the end."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from iadr1 import backbones
from iadr1.errors import ParamsError


def skeleton(folder: Path) -> Any:
    """The model of a folder without its weights: names and shapes only, in no memory."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    backbones.backbone_of(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def peft_config(keys: Mapping[str, Any], model: Path, *, freeze: Collection[str], section: str) -> Any:
    """PEFT's configuration from the keys of `lora`, None for full training; raises ParamsError for keys that PEFT refuses."""
    if not keys:
        return None
    from peft import LoraConfig

    targets = {} if "target_modules" in keys else {"target_modules": _targets(skeleton(model), freeze)}
    try:
        return LoraConfig(**(targets | dict(keys)))
    except (TypeError, ValueError) as error:
        raise ParamsError(f"params.yaml: {section}.lora: LoraConfig refuses these keys: {error}") from error


def _targets(model: Any, freeze: Collection[str]) -> list[str]:
    """The linear layers of the parts that are trained, but not the output layer, which TRL computes by itself."""
    import torch

    record, output = backbones.BACKBONES[model.config.model_type], model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not output]
    return [name for name in linear if record.part(f"{name}.") not in freeze]
