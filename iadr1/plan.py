"""What a training is going to do, before it is done: parts, batch, steps and an estimate of memory that refuses what cannot fit."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iadr1 import backbones, lora, prompts, sharding
from iadr1.errors import ModelError
from iadr1.images import open_image
from iadr1.memory import GIB, Load, Stack, memory
from iadr1.samples import Sample
from iadr1.training import Job


@dataclass(frozen=True, slots=True)
class Plan:
    """A training as it will run; `memory` and `available` are bytes a process."""

    stage: str
    model: Path
    parts: Mapping[str, Mapping[str, int]]
    processes: int
    rows_at_once: int
    accumulation: int
    steps: int
    settings: Mapping[str, Any]
    memory: Mapping[str, float]
    available: float

    @property
    def text(self) -> str:
        """The plan in lines for a person."""
        batch = self.processes * self.rows_at_once * self.accumulation
        sizes = [f"  {name:10} {part['parameters']:>15,} parameters, {part['trained']:,} trained" for name, part in self.parts.items()]
        told = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return "\n".join([
            f"{self.stage} of {self.model}: {self.steps} steps",
            *sizes,
            f"  global batch {batch} = {self.processes} processes x {self.rows_at_once} at once x {self.accumulation} accumulated",
            f"  settings   {told}",
            f"  memory     about {_gib(sum(self.memory.values()))} of {_gib(self.available)} GiB a process: {self._shares()}",
        ])  # fmt: skip

    def require_memory(self) -> None:
        """Raise ModelError when even one row at once cannot fit; what is more is for the ladder that halves the rows."""
        working = self.memory["activations"] / self.rows_at_once
        least = sum(self.memory.values()) - self.memory["activations"] - self.memory["generation"] + working
        if least > self.available:
            raise ModelError(
                f"{self.stage} of {self.model} needs about {_gib(least)} GiB of {_gib(self.available)} on each process ({self._shares()}); "
                "try LoRA (lora: {r: 16}), DeepSpeed ZeRO-3, or a smaller backbone."
            )

    def _shares(self) -> str:
        return ", ".join(f"{name} {_gib(size)}" for name, size in self.memory.items() if size)


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}" if size < 10 * GIB else f"{size / GIB:.0f}"


def plan(
    stage: str,
    job: Job,
    args: Any,
    samples: Sequence[Sample],
    *,
    processor: Any,
    settings: Sequence[str],
    completion: int,
    steps_an_epoch: float,
    shots: int,
) -> Plan:
    """The plan of a training with these arguments of its trainer; `completion` is the most tokens of an answer."""
    model = lora.skeleton(job.model)
    parts = _parts(model, job)
    steps = args.max_steps if args.max_steps > 0 else round(args.num_train_epochs * max(1, int(steps_an_epoch)))
    prompt, patches = prompt_size(processor, samples[0], shots, model.config.vision_config)
    return Plan(
        stage, job.model, parts, job.processes, args.per_device_train_batch_size, args.gradient_accumulation_steps, steps,
        {name: getattr(args, name) for name in settings}, memory(_load(model.config, parts, job, args, tokens=prompt + completion, patches=patches)),
        available(job),
    )  # fmt: skip


def _parts(model: Any, job: Job) -> dict[str, dict[str, int]]:
    config = lora.peft_config(job.lora, job.model, freeze=job.freeze, section="training")
    if config is None:
        backbones.freeze(model, job.freeze)
        return backbones.part_sizes(model)
    from peft import get_peft_model

    return backbones.part_sizes(get_peft_model(model, config, low_cpu_mem_usage=True))


def prompt_size(processor: Any, sample: Sample, shots: int, vision: Any) -> tuple[int, int]:
    """The tokens of a prompt, and the patches of its images."""
    references = sample.references[:shots]
    chat = prompts.messages(sample, shots=len(references))
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    images = [open_image(path) for path in (*references, sample.images[-1])]
    inputs = processor(images=[images], text=[text], return_tensors="pt")
    pixels = inputs["pixel_values"].shape
    # The Qwen families have a row for each patch, the others a picture for each tile.
    size = getattr(vision, "patch_size", 1)
    side = size if isinstance(size, int) else size[0]
    return int(inputs["input_ids"].shape[1]), pixels[0] if len(pixels) == 2 else math.prod(pixels[:-3]) * (pixels[-1] // side) ** 2


def _load(config: Any, parts: Mapping[str, Mapping[str, int]], job: Job, args: Any, *, tokens: int, patches: int) -> Load:
    total, trained = (sum(part[name] for part in parts.values()) for name in ("parameters", "trained"))
    text, vision = config.get_text_config(), config.vision_config
    half = str((args.model_init_kwargs or {}).get("dtype", "float32")).removeprefix("torch.") in ("bfloat16", "float16")
    width = 2 if half else 4
    stacks = [Stack(text.num_hidden_layers, text.hidden_size, tokens)]
    if parts["vision"]["trained"]:
        stacks.append(Stack(_first(vision, "depth", "num_hidden_layers"), _first(vision, "embed_dim", "hidden_size"), patches))
    return Load(
        total, trained, job.processes, sharding.zero_stage(args.deepspeed), element=2 if args.bf16 or half else 4,
        weight=lora.quantized_bytes(text, total, width=width) / total if lora.QUANTIZED in job.lora else width,
        rows=args.per_device_train_batch_size, stacks=tuple(stacks), checkpointing=args.gradient_checkpointing,
        has_reference=bool(getattr(args, "beta", 0.0)) and not job.lora,
        rollout=args.per_device_train_batch_size * args.gradient_accumulation_steps if hasattr(args, "num_generations") else 0,
        cache=_cache_width(text) * text.num_hidden_layers,
    )  # fmt: skip


def _first(config: Any, *names: str) -> int:
    return next(int(value) for name in names if (value := getattr(config, name, None)) is not None)


def _cache_width(text: Any) -> int:
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return int(2 * heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads))


def available(job: Job) -> float:
    """The bytes that a process can have: its GPU's, or its share of the machine's memory."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / job.processes
