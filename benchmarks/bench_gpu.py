"""PA-SFT and SC-GRPO on models of half a billion parameters in bfloat16: samples a second, share of the GPU's speed (MFU), memory.

Run with `python -m benchmarks.bench_gpu` where CUDA is; random weights in the classes of LLaVA-OneVision and Qwen2.5-VL, with PyTorch's attention
and, where its package is there, FlashAttention. `--tiny` runs the same on the CPU with tiny models, which says nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.arms import Arm, Meter, Work, own_pa_sft, own_sc_grpo
from benchmarks.bench_train import PARTS, Row, alone, measure, part_shares, range_of, wordy
from iadr1 import backbones, lora, plan
from iadr1.report_tables import table
from iadr1.shapes import SHAPES
from tests.families import FAMILIES, Family, build
from tests.tiny import tiny_samples

STAGES = {"pa_sft": own_pa_sft, "sc_grpo": own_sc_grpo}
SIDE = 512
ONEVISION = SHAPES[0]
TEXT = {key: value for key, value in ONEVISION.text.items() if key not in ("model_type", "tie_word_embeddings")}
# Qwen2.5-VL has no checkpoint of this size: the language model of the one above under a narrower tower.
TOWER = {
    "depth": 16,
    "hidden_size": 640,
    "num_heads": 10,
    "intermediate_size": 1710,
    "out_hidden_size": TEXT["hidden_size"],
    "patch_size": 14,
}


def main() -> None:
    """Print a table a stage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_gpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often every arm is measured (default %(default)s)")
    parser.add_argument(
        "--tflops", type=float, default=989.0, help="the GPU's bfloat16 operations a second, in 10^12 (default: H100, H200)"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU: whether everything runs")
    parser.add_argument("--json", type=Path, help="where to write every measurement")
    options = parser.parse_args()
    sys.modules.setdefault("vllm", None)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        works = {name: _work(name, Path(folder), tiny=options.tiny) for name in ("llava_onevision", "qwen2_5_vl")}
        measured = {stage: _rows(stage, works, options) for stage in STAGES}
    for stage, rows in measured.items():
        sys.stdout.write(f"\n{stage} ({options.rounds} rounds{', tiny models on the CPU' if options.tiny else ''})\n\n{_markdown(rows)}")
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


def _work(name: str, folder: Path, *, tiny: bool) -> Work:
    images = folder / f"{name}-images"
    images.mkdir()
    samples = [wordy(sample) for sample in tiny_samples(images, 8 if tiny else 64, side=48 if tiny else SIDE)]
    model = folder / name
    model.mkdir()
    alone(build, FAMILIES[name] if tiny else LARGE[name], model)
    if tiny:
        return Work(model, samples, model, None, epochs=1, batch=4, steps=1, completions=8, tokens=4)
    return Work(model, samples, model, None, epochs=2, batch=8, steps=4, completions=24, tokens=200)


def _onevision(tokenizer: Any) -> Any:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    config = LlavaOnevisionConfig(
        vision_config=dict(ONEVISION.vision),
        text_config={**ONEVISION.text, **_ends(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
        tie_word_embeddings=True,
    )
    return LlavaOnevisionForConditionalGeneration(config)


PINPOINTS = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]


def _onevision_processor(tokenizer: Any) -> Any:
    from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

    size = {"height": 384, "width": 384}
    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=PINPOINTS),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=729,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
    )


def _qwen(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {"image": "<|image_pad|>", "video": "<|video_pad|>", "vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    named = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in ids.items()}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 8, 8]}
    text = {**TEXT, **_ends(tokenizer), "rope_parameters": rope, "tie_word_embeddings": True}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=TOWER, tie_word_embeddings=True, **named))


def _qwen_processor(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    sizes = {"size": {"shortest_edge": 3136, "longest_edge": 480_000}}
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(**sizes), chat_template=tokenizer.chat_template
    )


def _ends(tokenizer: Any) -> dict[str, Any]:
    return {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": 32_768,
    }


LARGE: dict[str, Family] = {
    "llava_onevision": replace(FAMILIES["llava_onevision"], model=_onevision, processor=_onevision_processor),
    "qwen2_5_vl": replace(FAMILIES["qwen2_5_vl"], model=_qwen, processor=_qwen_processor),
}


def _rows(stage: str, works: dict[str, Work], options: argparse.Namespace) -> list[Row]:
    rows = []
    for name, work in works.items():
        arms = [Arm(f"{name}, {attention}", partial(_with_attention, STAGES[stage], attention)) for attention in _attentions(options.tiny)]
        language, vision = alone(_operations, work)
        for row in measure(arms, work, rounds=options.rounds):
            done = row["samples"] * _factor(stage, language, vision, row.get("tokens", 0.0))
            rows.append({**row, "mfu": done / row["wall"] / (options.tflops * 1e12)})
    return rows


def _attentions(tiny: bool) -> list[str]:
    from transformers.utils import is_flash_attn_2_available

    if tiny:
        return ["sdpa", "eager"]
    return ["sdpa", *["flash_attention_2"] * bool(is_flash_attn_2_available())]


def _with_attention(train: Any, attention: str, work: Work, meter: Meter) -> dict[str, float]:
    """The stage's training with this attention, in bfloat16 where a GPU is."""
    import torch

    dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    return dict(train(replace(work, keys={"model_init_kwargs": {"attn_implementation": attention, "dtype": dtype}}), meter))


def _operations(work: Work) -> tuple[tuple[float, int], float]:
    """Operations of a forward pass: of one token of the language model with the tokens of a prompt, and of an image."""
    model = lora.skeleton(work.model)
    sizes = {name: part["parameters"] for name, part in backbones.part_sizes(model).items()}
    text = model.config.get_text_config()
    table_size = 0 if model.config.tie_word_embeddings else text.vocab_size * text.hidden_size
    tokens, patches = plan.prompt_size(backbones.load_processor(work.model), work.samples[0], 0, model.config.vision_config)
    return (2.0 * (sizes["language"] - table_size), tokens), 2.0 * sizes["vision"] * patches


def _factor(stage: str, language: tuple[float, int], vision: float, said: float) -> float:
    """Operations of a sample that a step cannot do without: no recomputation counts."""
    (token, prompt), answer = language, said or 40.0
    forward = token * (prompt + answer) + vision
    # SC-GRPO: rollout and reference are a forward pass each.
    return 3 * forward if stage == "pa_sft" else 5 * forward


def _markdown(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(row["arm"] for row in rows))
    found = []
    for name in names:
        arm = [row for row in rows if row["arm"] == name]
        cells = [
            [row["samples"] / row["wall"] for row in arm],
            [100 * row["mfu"] for row in arm],
            [row["peak_bytes"] / 2**30 for row in arm],
        ]
        found.append([name, *(range_of(values, ".3g") for values in cells), *(part_shares(arm, clock="wall") if arm[0]["parts"] else [])])
    shares = PARTS if rows[0]["parts"] else []
    return table(["", "samples/s", "MFU, %", "peak memory, GiB", *shares], found)


if __name__ == "__main__":
    main()
