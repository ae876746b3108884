"""The plan of a training: what it says is what happens, and what cannot fit is refused before it begins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iadr1 import pa_sft, sc_grpo
from iadr1.errors import ModelError
from iadr1.plan import GIB, Plan
from iadr1.recipes import RECIPES
from iadr1.samples import Sample
from iadr1.training import Job
from tests import test_pa_sft, test_sc_grpo
from tests.tiny import SIDE, tiny_backbone, tiny_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return tiny_samples(tmp_path_factory.mktemp("images"), 12)


def job(folder: Path, keys: dict[str, Any], **options: Any) -> Job:
    return Job(keys, tiny_backbone(), SIDE * SIDE, options.pop("freeze", ()), 0, folder / "checkpoints", folder / "model", **options)


def test_the_plan_of_pa_sft_is_what_happens(samples: list[Sample], tmp_path: Path) -> None:
    plan = pa_sft.planned(job(tmp_path, test_pa_sft.KEYS, freeze=("vision",)), samples[:10])
    _, outcome = test_pa_sft.trained(tmp_path, samples, freeze=("vision",))
    assert plan.steps == outcome.steps == 6 and plan.parts == outcome.parts
    assert "global batch 4 = 1 processes x 4 at once x 1 accumulated" in plan.text and "0 trained" in plan.text


@pytest.mark.parametrize("changes, steps", [({}, 4), ({"num_iterations": 2}, 8), ({"max_steps": 3}, 3)])
def test_the_plan_of_sc_grpo_counts_its_steps(samples: list[Sample], tmp_path: Path, changes: dict[str, int], steps: int) -> None:
    keys = {**test_sc_grpo.KEYS, "max_steps": -1, **changes}
    plan = sc_grpo.planned(job(tmp_path, keys), samples[:8], recipe=RECIPES["paper"])
    assert plan.steps == steps
    assert "beta 0.04" in plan.text and "num_generations 4" in plan.text and plan.memory["reference"] == plan.memory["weights"]


def test_memory_is_that_of_the_weights_and_of_what_is_trained(samples: list[Sample], tmp_path: Path) -> None:
    whole = pa_sft.planned(job(tmp_path, test_pa_sft.KEYS), samples)
    count = sum(part["parameters"] for part in whole.parts.values())
    assert (whole.memory["weights"], whole.memory["gradients"], whole.memory["Adam"]) == (4 * count, 4 * count, 8 * count)
    adapted = pa_sft.planned(job(tmp_path, test_pa_sft.KEYS, lora={"r": 2}), samples)
    assert adapted.memory["Adam"] < whole.memory["Adam"] / 4 and adapted.parts["language"]["trained"] > 0
    sharded = pa_sft.planned(job(tmp_path, {**test_pa_sft.KEYS, "per_device_train_batch_size": 1}, processes=2), samples)
    assert sharded.processes == 2 and sharded.memory["activations"] == whole.memory["activations"] / 4


BIG = Plan(
    "pa_sft", Path("seven"), {}, 1, 4, 2, 100, {"learning_rate": 1e-5},
    {"weights": 28 * GIB, "gradients": 28 * GIB, "Adam": 56 * GIB, "reference": 0.0, "activations": 8 * GIB, "generation": 0.0}, 24 * GIB,
)  # fmt: skip


def test_what_cannot_fit_is_refused_with_what_would_help() -> None:
    with pytest.raises(
        ModelError, match=r"pa_sft of seven needs about 114 GiB of 24 on each process \(weights 28.*try LoRA .*, DeepSpeed ZeRO-3"
    ):
        BIG.require_memory()
    replace(BIG, available=115 * GIB).require_memory()  # eight gibibytes of activations are the ladder's business
