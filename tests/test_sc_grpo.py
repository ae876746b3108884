"""SC-GRPO: rewards reach their own completions, no image token is sampled, a kill costs nothing, a faulty reward stops the run."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iadr1 import sc_grpo
from iadr1.errors import DatasetError, ModelError, ParamsError
from iadr1.recipes import RECIPES, Recipe
from iadr1.samples import Sample
from iadr1.training import Job, Outcome
from tests.test_pa_sft import Killed, killed_after
from tests.tiny import SIDE, tiny_backbone, tiny_samples

KEYS = {
    "max_steps": 3, "per_device_train_batch_size": 8, "logging_steps": 1, "save_steps": 2, "learning_rate": 1e-3,
    "max_completion_length": 10, "disable_tqdm": True,
}  # fmt: skip
REWARDS = {"consistency": 1.0, "accuracy": 1.0, "location": 1.0, "type": 1.0}
FAULTY = """
def spread(verdict, sample, grid):
    return float(int(sample.id[-1]) % 2) + hash(verdict.reasoning or "") % 7
def broken(verdict, sample, grid):
    return {}[sample.id] if sample.anomalous else 0.0
def endless(verdict, sample, grid):
    return float("inf")
"""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return tiny_samples(tmp_path_factory.mktemp("images"), 8)


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A file of rewards of one's own."""
    (tmp_path / "own.py").write_text(FAULTY, encoding="utf-8")
    return str(tmp_path / "own.py")


def trained(
    folder: Path,
    samples: list[Sample],
    *,
    validation: list[Sample] | None = None,
    rewards: dict[str, float] = REWARDS,
    callbacks: Any = (),
    recipe: Recipe = RECIPES["paper"],
    **keys: Any,
) -> tuple[str, Outcome]:
    """The hash of the weights after a training in a folder, and its outcome."""
    into = folder / "model"
    shutil.rmtree(into, ignore_errors=True)
    ours = {name: keys.pop(name) for name in ("global_batch_size", "lora") if name in keys}
    job = Job(
        {**KEYS, **keys}, tiny_backbone(), SIDE * SIDE, (), 0, folder / "checkpoints", into, callbacks=callbacks, **ours
    )  # fmt: skip
    outcome = sc_grpo.train(job, samples, validation=validation or [], preset="paper", rewards=rewards, grid=3, recipe=recipe)
    return hashlib.sha256((into / "model.safetensors").read_bytes()).hexdigest(), outcome


def test_every_component_and_the_health_of_the_training_are_in_the_curve(samples: list[Sample], tmp_path: Path) -> None:
    # Anomalous ones: where nothing is to be located, that reward is not applicable and its column is empty.
    _, outcome = trained(tmp_path, samples[1::2], max_steps=1)
    (row,) = sc_grpo.curve(outcome.history, REWARDS)
    assert row.keys() >= {"step", "loss", "reward", "reward_std", "kl", "completion_length", "clipped_ratio", "frac_reward_zero_std"}
    assert [name for name in row if name.startswith("rewards/")] == [f"rewards/{name}" for name in REWARDS]
    assert all(value is not None for value in row.values())


def test_the_reward_of_the_validation_samples_is_measured_before_and_after(samples: list[Sample], tmp_path: Path) -> None:
    _, outcome = trained(tmp_path, samples[:4], validation=samples[4:], max_steps=2)
    measured = {entry["step"]: entry["eval_reward"] for entry in outcome.history if "eval_reward" in entry}
    assert measured.keys() == {0, 2}
    assert all(isinstance(value, float) for value in measured.values())


def test_each_reward_belongs_to_its_completion_and_groups_stay_together(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL hands over groups of one prompt: image, sample and advantage of a row must be of that prompt."""
    from trl import GRPOTrainer

    seen: list[dict[str, Any]] = []
    score = GRPOTrainer._generate_and_score_completions

    def spy(self: Any, inputs: list[dict[str, Any]]) -> Any:
        output = score(self, inputs)
        seen.append({"inputs": inputs, "output": output, "rewards": {name: list(values) for name, values in self._logs["rewards"].items()}})
        return output

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", spy)
    monkeypatch.setattr(sc_grpo, "trl_rewards", lambda *_: ([LengthReward()], [1.0]))
    trained(tmp_path, samples, max_steps=1)
    (batch,) = seen
    rows = [Sample.from_json(row["sample"]) for row in batch["inputs"]]
    assert (
        [row.id for row in rows[:4]] == [rows[0].id] * 4 and [row.id for row in rows[4:]] == [rows[4].id] * 4 and rows[0].id != rows[4].id
    )
    lengths = batch["output"]["completion_mask"].sum(1).float()
    assert batch["rewards"]["length"] == pytest.approx(LengthReward.given)
    groups = lengths.new_tensor(LengthReward.given).view(2, 4)
    expected = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    assert batch["output"]["advantages"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    pixels = batch["output"]["pixel_values"].view(8, -1)
    assert all((pixels[at] == pixels[at - at % 4]).all() for at in range(8)) and not (pixels[0] == pixels[4]).all()


class LengthReward:
    """A reward that differs within a group and remembers what it gave."""

    __name__ = "length"
    given: list[float] = []  # noqa: RUF012

    def __call__(self, prompts: Any, completions: Any, sample: Any, **_: Any) -> list[float | None]:
        values = [
            len(set(completion[-1]["content"])) + 10.0 * int(Sample.from_json(row).id[-1])
            for completion, row in zip(completions, sample, strict=True)
        ]
        LengthReward.given += values
        return values  # type: ignore[return-value]


def test_no_image_token_is_ever_sampled(samples: list[Sample], tmp_path: Path) -> None:
    from transformers import TrainerCallback

    class Look(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **_: Any) -> None:
            configs.append((model.config.image_token_id, processing_class.image_token_id))

    configs: list[tuple[int, int]] = []
    from trl import GRPOTrainer

    found: list[Any] = []
    init = GRPOTrainer.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GRPOTrainer, "__init__", lambda self, *args, **options: (init(self, *args, **options), found.append(self))[0])
        trained(tmp_path, samples, max_steps=1, callbacks=[Look()])
    (trainer,), (image_token, _) = found, configs[0]
    assert trainer.generation_config.suppress_tokens == [image_token]
    assert image_token not in trainer._buffered_inputs[0]["completion_ids"]


def test_a_killed_training_resumes_to_the_weights_of_an_undisturbed_one(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sc_grpo, "trl_rewards", lambda *_: ([LengthReward()], [1.0]))
    undisturbed, outcome = trained(tmp_path / "whole", samples, validation=samples[:4])
    assert (
        next(entry for entry in outcome.history if "reward_std" in entry)["reward_std"] > 0
        and undisturbed != hashlib.sha256((tiny_backbone() / "model.safetensors").read_bytes()).hexdigest()
    )
    with pytest.raises(Killed):
        trained(tmp_path / "killed", samples, validation=samples[:4], callbacks=[killed_after(3)])
    resumed, _ = trained(tmp_path / "killed", samples, validation=samples[:4])
    assert resumed == undisturbed


@pytest.mark.parametrize(
    "name, message",
    [
        ("broken", r"reward 'broken' failed on sample made/00[1357]: KeyError: 'made/00[1357]' at own.py:5"),
        ("endless", r"reward 'endless' failed on sample made/00\d: ValueError: a reward is a finite number or None, not inf"),
    ],
)
def test_a_reward_that_fails_stops_the_run_and_names_the_sample(
    samples: list[Sample], tmp_path: Path, own: str, name: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        trained(tmp_path, samples, rewards={f"{own}:{name}": 1.0}, max_steps=8)


@pytest.mark.parametrize(
    "keys, message",
    [
        (
            {"num_generations": 3},
            r"sc_grpo: GRPOConfig refuses these keys: generation_batch_size \(8\) must be divisible by num_generations \(3\)",
        ),
        ({"seed": 1}, "sc_grpo.seed is decided by the stage"),
        ({"global_batch_size": 8, "gradient_accumulation_steps": 2}, "sc_grpo.gradient_accumulation_steps follows from global_batch_size"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_training(
    samples: list[Sample], tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        trained(tmp_path, samples, **keys)


def test_no_rows_are_refused() -> None:
    with pytest.raises(DatasetError, match="SC-GRPO has no rows"):
        sc_grpo.require_trainable([])


class GivenRewards:
    """A reward that gives the next of a list at each call, whatever was said."""

    __name__ = "given"

    def __init__(self, *batches: list[float]) -> None:
        self.batches = [value for batch in batches for value in batch]

    def __call__(self, prompts: Any, completions: Any, sample: Any, **_: Any) -> list[float | None]:
        return [self.batches.pop(0) for _ in completions]


def test_groups_that_earn_all_the_same_are_sampled_again_and_the_others_kept(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    generated: list[list[list[int]]] = []
    kept: list[list[list[int]]] = []
    turn, generate = GRPOTrainer._generate_single_turn, GRPOTrainer._generate
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", lambda *a, **k: (generated.append((made := turn(*a, **k))[0]), made)[1])
    monkeypatch.setattr(GRPOTrainer, "_generate", lambda *a, **k: (kept.append((made := generate(*a, **k))[1]), made)[1])
    lively, dead = [0.0, 1.0, 2.0, 3.0], [1.0] * 4
    given = GivenRewards([*lively, *dead], [*lively, *dead], [*lively, *lively], [*lively, *lively])
    monkeypatch.setattr(sc_grpo, "trl_rewards", lambda *_: ([given], [1.0]))
    _, outcome = trained(tmp_path, samples, max_steps=1, recipe=replace(RECIPES["paper"], resamples=3))
    first, second, third = generated
    assert kept == [[*first[:4], *third[4:]]] and not given.batches and second != third
    step = next(entry for entry in outcome.history if "resampled" in entry)
    assert step["resampled"] == 0.5 and step["frac_reward_zero_std"] == 0.0


def test_the_robust_recipe_trains_on_batches_with_both_classes(samples: list[Sample], tmp_path: Path) -> None:
    _, outcome = trained(tmp_path, samples, max_steps=2, recipe=RECIPES["robust"])
    table = sorted((tmp_path / "checkpoints" / "completions").glob("*.parquet"))
    import pandas

    anomalous = {sample.id: sample.anomalous for sample in samples}
    assert [{anomalous[name] for name in pandas.read_parquet(path)["sample"]} for path in table] == [{True, False}] * 2
    assert outcome.steps == 2


def test_accumulation_makes_the_global_batch(samples: list[Sample], tmp_path: Path) -> None:
    trained(tmp_path, samples, max_steps=1, per_device_train_batch_size=4, global_batch_size=16)
    import pandas

    (table,) = (tmp_path / "checkpoints" / "completions").glob("*.parquet")
    assert len(pandas.read_parquet(table)) == 16


def test_adapters_are_rewarded_against_the_model_without_them(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sc_grpo, "trl_rewards", lambda *_: ([LengthReward()], [1.0]))
    weights, outcome = trained(tmp_path, samples, lora={"r": 4}, max_steps=2, learning_rate=1e-2)
    kl = [entry["kl"] for entry in outcome.history if "kl" in entry]
    assert kl[0] == 0.0 < kl[1]
    assert 0 < outcome.parts["language"]["trained"] < outcome.parts["language"]["parameters"] / 4
    assert weights != hashlib.sha256((tiny_backbone() / "model.safetensors").read_bytes()).hexdigest()
