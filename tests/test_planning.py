"""The planning table: its model scales as it says, fits what is measured, and knows the published backbones' sizes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from iadr1.backbones import BACKBONES
from iadr1.cli import main
from iadr1.memory import GIB
from iadr1.planning import GPUS, Assumed, estimate, lora_parameters, plan_table
from iadr1.shapes import SHAPES, Shape

A100, H200 = GPUS["a100-80g"], GPUS["h200-141g"]
NAMED = {shape.hub.rpartition("/")[2]: shape for shape in SHAPES}
SEVEN = NAMED["Qwen2.5-VL-7B-Instruct"]
ROOT = Path(__file__).parent.parent


def test_every_backbone_that_can_be_trained_is_in_the_table() -> None:
    trained = [checkpoint.hub for record in BACKBONES.values() for checkpoint in record.checkpoints if checkpoint.paper != "evaluates"]
    assert sorted(shape.hub for shape in SHAPES) == sorted(trained)
    assert all(BACKBONES[shape.model_type] for shape in SHAPES)


@pytest.mark.parametrize("mode, gibibytes", [("full", 16), ("zero3", 16 / 8), ("lora", 4)])
def test_memory_is_bytes_a_parameter_and_the_work_of_a_row(mode: str, gibibytes: float) -> None:
    found = estimate(SEVEN, H200, 8, mode, "pa_sft", Assumed()).memory
    states = gibibytes * SEVEN.total + (16 * lora_parameters(SEVEN) if mode == "lora" else 0)
    assert states < found < states + 2 * GIB


@pytest.mark.parametrize(
    "changes, factor",
    [({"mfu": 0.7}, 0.5), ({"pa_sft_batch": 16}, 2.0), ({"pa_sft_rows": 5800}, 1.0)],
)
def test_a_step_takes_what_its_operations_take(changes: dict[str, float], factor: float) -> None:
    step = estimate(SEVEN, A100, 1, "full", "pa_sft", Assumed()).step
    assert estimate(SEVEN, A100, 1, "full", "pa_sft", replace(Assumed(), **changes)).step == pytest.approx(factor * step)


def test_a_step_of_pa_sft_is_eight_operations_a_parameter_and_token() -> None:
    blind = replace(SEVEN, parameters={**SEVEN.parameters, "vision": 0, "projector": 0}, image_tokens=0)
    operations = 8 * 8 * blind.computed * (60 + 200)
    assert estimate(blind, A100, 1, "full", "pa_sft", Assumed()).step == pytest.approx(operations / (0.35 * 312e12))


def test_answers_twice_as_long_take_twice_as_long_to_say() -> None:
    steps = [estimate(SEVEN, A100, 1, "full", "sc_grpo", replace(Assumed(), said=said)).step for said in (0, 200, 400)]
    assert steps[2] - steps[1] == pytest.approx(steps[1] - steps[0], rel=0.02)


@pytest.mark.parametrize("mode", ["full", "lora", "zero3"])
def test_more_gpus_take_less_time_and_cost_no_less(mode: str) -> None:
    found = [estimate(SEVEN, A100, count, mode, "sc_grpo", Assumed()) for count in (1, 2, 4, 8)]
    assert [one.step for one in found] == sorted((one.step for one in found), reverse=True)
    costs = [one.hours * count for one, count in zip(found, (1, 2, 4, 8), strict=True)]
    assert costs == sorted(costs)


def test_the_papers_steps_are_counted() -> None:
    stages = [estimate(SEVEN, A100, 4, "zero3", stage, Assumed()).steps for stage in ("pa_sft", "sc_grpo")]
    assert stages == [726, 500]


def test_what_does_not_fit_says_what_it_needs() -> None:
    line = plan_table(A100, "pa_sft", "full", price=2.0, assumed=Assumed(), shapes=[SEVEN])
    assert line.count("needs 124 GiB") == 4


def test_the_command_plans_for_what_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def cost(price: str) -> float:
        assert main(["plan", "--stage", "pa_sft", "--gpu", "h200-141g", "--mode", "lora", "--price", price]) == 0
        row = next(line for line in capsys.readouterr().out.splitlines() if "LLaVA-7B" in line or "llava-1.5-7b" in line)
        return float(row.split("|")[2].split(",")[-1])

    assert cost("20") == pytest.approx(10 * cost("2"), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=[*NAMED])
def test_the_sizes_are_those_of_the_models(shape: Shape) -> None:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    from iadr1.backbones import part_sizes

    others = {"scale_factor": 4} if shape.model_type == "smolvlm" else {}
    config = CONFIG_MAPPING[shape.model_type](
        text_config=dict(shape.text), vision_config=dict(shape.vision), tie_word_embeddings=shape.tied, **others
    )
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert {name: part["parameters"] for name, part in part_sizes(model).items()} == dict(shape.parameters)


# The estimate leaves out the allocator's holes, the encoded rows and what saving copies; of a training this small they are a part.
LEAST, MOST = 0.5, 2.0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pa_sft", "sc_grpo"])
def test_the_estimate_of_memory_is_within_a_factor_of_two_of_the_measured_peak(stage: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.measured_training", stage, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert LEAST < found["measured"] / found["estimate"] < MOST, found
