"""What stops a training: collapse says why and keeps the good, SIGTERM saves, a hang is dumped, memory that runs out halves the rows at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iadr1 import sc_grpo, training
from iadr1.errors import ModelError, Stopped
from iadr1.guards import Limits, collapse
from iadr1.samples import Sample
from tests import test_pa_sft, test_sc_grpo
from tests.tiny import tiny_samples

ROOT = Path(__file__).parent.parent
HEALTHY = {
    "loss": 0.01, "grad_norm": 1.0, "reward": 2.0, "kl": 0.002, "entropy": 0.2, "completions/mean_length": 54.0,
    "completions/clipped_ratio": 0.0, "frac_reward_zero_std": 0.57, "said_anomalous": 0.6, "are_anomalous": 0.5,
}  # fmt: skip
LEARNING = {"loss": 0.5, "grad_norm": 1.0}


def history(start: dict[str, float], end: dict[str, float], steps: int = 30) -> list[dict[str, Any]]:
    """A log that goes evenly from one state to another."""
    shares = [step / (steps - 1) for step in range(steps)]
    return [
        {"step": at + 1, **{name: start[name] + (end[name] - start[name]) * share for name in start}} for at, share in enumerate(shares)
    ]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return tiny_samples(tmp_path_factory.mktemp("images"), 12)


@pytest.mark.parametrize("start", [HEALTHY, LEARNING])
def test_a_healthy_training_has_not_collapsed(start: dict[str, float]) -> None:
    better = {**start, "loss": start["loss"] / 2, **({"reward": 3.5, "frac_reward_zero_std": 0.9, "kl": 0.3} if "reward" in start else {})}
    assert collapse(history(start, better), Limits()) is None
    assert collapse([], Limits()) is None and collapse([{"step": 1, "eval_reward": 0.0}], Limits()) is None


@given(values=st.lists(st.floats(0.001, 1e3), min_size=1, max_size=60))
def test_however_steeply_a_training_gets_better_it_has_not_collapsed(values: list[float]) -> None:
    falling, rising = sorted(values, reverse=True), sorted(values)
    losses = [{"step": at, "loss": value} for at, value in enumerate(falling)]
    rewards = [{"step": at, **HEALTHY, "reward": value} for at, value in enumerate(rising)]
    for so_far in range(len(values) + 1):
        assert collapse(losses[:so_far], Limits()) is None and collapse(rewards[:so_far], Limits()) is None


@pytest.mark.parametrize(
    "start, name, value, reason",
    [
        (HEALTHY, "reward", 0.1, r"the reward fell to 0\.\d+ from 1\.\d+. Lower learning_rate"),
        (HEALTHY, "kl", 9.0, r"the policy is 7\.\d+ nats a token from the reference"),
        (HEALTHY, "entropy", -0.05, r"every completion is the same"),
        (HEALTHY, "entropy", 5.0, r"the entropy rose to 4\.\d+ nats a token from 0\.\d+"),
        (HEALTHY, "completions/mean_length", -9.0, r"completions fell to \d+ tokens from \d+"),
        (HEALTHY, "completions/clipped_ratio", 1.2, r"% of the completions end by the limit of tokens. Raise max_completion_length"),
        (HEALTHY, "frac_reward_zero_std", 1.2, r"of the groups all completions earn the same"),
        (LEARNING, "loss", 3.0, r"the loss rose to 2\.\d+ from 0\.\d+"),
    ],
)
def test_a_training_that_collapses_is_told_by_what_it_shows(start: dict[str, float], name: str, value: float, reason: str) -> None:
    import re

    assert re.search(reason, collapse(history(start, {**start, name: value}), Limits()) or "nothing")


@pytest.mark.parametrize("said, answer", [(1.0, "yes"), (0.0, "no")])
def test_answers_of_one_class_are_a_collapse_while_the_prompts_have_both(said: float, answer: str) -> None:
    one = {**HEALTHY, "said_anomalous": said}
    assert f"100.0% of the answers are {answer}, of 50% anomalous prompts" in (collapse(history(one, one), Limits()) or "")
    alike = {**one, "are_anomalous": said}
    assert collapse(history(alike, alike), Limits()) is None


@pytest.mark.parametrize("name, value", [("loss", float("nan")), ("grad_norm", float("inf")), ("kl", float("nan"))])
def test_a_number_that_is_not_finite_stops_at_once(name: str, value: float) -> None:
    assert f"{name} is {value} at step 3" in (collapse([{"step": 3, **HEALTHY, name: value}], Limits()) or "")


def test_one_odd_batch_is_no_collapse() -> None:
    entries = history(HEALTHY, HEALTHY)
    entries[-1] |= {"reward": 0.0, "kl": 50.0, "entropy": 0.0, "completions/mean_length": 1.0, "frac_reward_zero_std": 1.0}
    assert collapse(entries, Limits()) is None


def test_a_collapsed_training_keeps_the_checkpoint_from_before(samples: list[Sample], tmp_path: Path) -> None:
    """With completions that all reach their limit, which the tiny model's do, after a window of two entries."""
    from tests.tiny import SIDE, tiny_backbone

    keys = {**test_sc_grpo.KEYS, "max_steps": 8, "save_steps": 1, "save_total_limit": 9}
    (tmp_path / "into").mkdir()
    limits = replace(Limits(), window=2, clipped=0.5, dead=2.0)
    job = training.Job(keys, tiny_backbone(), SIDE * SIDE, (), 0, tmp_path / "checkpoints", tmp_path / "into", limits=limits)
    with pytest.raises(
        ModelError, match=r"collapsed at step 2: .* end by the limit of tokens.* The last good checkpoint is .*checkpoint-1"
    ):
        sc_grpo.train(job, samples[:8], validation=[], preset="paper", rewards=test_sc_grpo.REWARDS, grid=3)
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-1"]


def at_step(step: int, act: Callable[[], Any]) -> Any:
    """A callback that acts once during a step."""
    from transformers import TrainerCallback

    class Act(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == step - 1:
                act()

    return Act()


def test_sigterm_saves_and_the_next_run_ends_as_an_undisturbed_one(samples: list[Sample], tmp_path: Path) -> None:
    undisturbed, _ = test_pa_sft.trained(tmp_path / "whole", samples)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=r"asked to stop \(SIGTERM\) at step 3; a checkpoint is saved in .*, the next run resumes"):
        test_pa_sft.trained(tmp_path / "cut", samples, callbacks=[at_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM))])
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "cut" / "checkpoints" / "checkpoint-3" / training.COMPLETE).is_file()
    assert test_pa_sft.trained(tmp_path / "cut", samples)[0] == undisturbed


def test_where_memory_runs_out_half_the_rows_at_once_make_the_same_steps(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from trl import SFTTrainer

    taken: list[int] = []
    step = SFTTrainer.training_step

    def scarce(self: Any, model: Any, inputs: Any, *others: Any) -> Any:
        taken.append(len(inputs["input_ids"]))
        if taken[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, model, inputs, *others)

    monkeypatch.setattr(SFTTrainer, "training_step", scarce)
    _, outcome = test_pa_sft.trained(tmp_path, samples, max_steps=2)
    assert taken == [4, 2, *[1] * 8] and outcome.steps == 2
    assert (tmp_path / "checkpoints" / training.FITTING).read_text() == "1 4\n"
    monkeypatch.setattr(SFTTrainer, "training_step", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(ModelError, match=r"memory ran out with one row at once\. Train with LoRA"):
        test_pa_sft.trained(tmp_path, samples, max_steps=4)


HANGING = """
import time
from transformers import TrainingArguments, TrainerControl, TrainerState
from iadr1.guards import ends_when_hanging
watch = ends_when_hanging(1.0)
def a_rollout_that_never_ends():
    time.sleep(60)
watch.on_step_begin(None, TrainerState(), TrainerControl())
a_rollout_that_never_ends()
"""


def test_a_hang_ends_with_the_stack_of_where_it_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 1 and "a_rollout_that_never_ends" in done.stderr and "Timeout" in done.stderr
