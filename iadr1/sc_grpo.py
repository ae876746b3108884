"""SC-GRPO: reward consistent reasoning, right answers, places and types, with `trl.GRPOTrainer`."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from types import TracebackType
from typing import Any

from iadr1 import backbones, rollouts, training
from iadr1.errors import DatasetError, ModelError
from iadr1.image_counts import count_images
from iadr1.images import open_image, require_readable
from iadr1.pa_sft import prompt_row
from iadr1.plan import Plan, plan
from iadr1.recipes import RECIPES, Recipe, balanced_order
from iadr1.resampling import resampling_trainer
from iadr1.rewards import TrlReward, trl_rewards
from iadr1.samples import Sample
from iadr1.training import Job, Outcome
from iadr1.verdict import Verdict

NEVER = 2**31
SETTINGS = (
    "learning_rate", "lr_scheduler_type", "bf16", "gradient_checkpointing", "loss_type", "beta", "epsilon", "num_iterations", "num_generations",
    "max_completion_length", "temperature", "top_p", "top_k", "use_vllm",
)  # fmt: skip
COLUMNS = (
    "epoch",
    "loss",
    "reward",
    "reward_std",
    "kl",
    "entropy",
    "completion_length",
    "clipped_ratio",
    "frac_reward_zero_std",
    "unreadable",
    "grad_norm",
    "learning_rate",
)
RENAMED = {"completions/mean_length": "completion_length", "completions/clipped_ratio": "clipped_ratio"}


def train(
    job: Job,
    samples: Sequence[Sample],
    *,
    validation: Sequence[Sample],
    preset: str,
    rewards: Mapping[str, float],
    grid: int,
    recipe: Recipe = RECIPES["paper"],
    shots: int = 0,
    form: bool = False,
) -> Outcome:
    """Tune `job.model` on its own completions for the samples and save the result; resumes where a killed run has left a checkpoint.

    A prompt shows up to `shots` references before the query, and states the form of the answer with `form`.
    The rewards of the validation samples are measured before and after: a step's own reward says as much about its few prompts as about the model.
    """
    functions, weights = trl_rewards(preset, rewards, grid)
    require_trainable([*samples, *validation], shots=shots)
    processor = backbones.load_processor(job.model, max_pixels=job.max_pixels)
    naming = [NamingReward(function, logs_samples=not at) for at, function in enumerate(functions)]
    ordered = balanced_order(samples, job.seed) if recipe.balanced else samples
    train_rows, validation_rows = (rows(part, shots=shots, form=form) if part else None for part in (ordered, validation))
    images = _most_images([*samples, *validation], shots)

    def build(job: Job) -> Any:
        config = _config(job, recipe, weights, is_validated=bool(validation))
        rollouts.require_possible(job, config, images=images)
        with rollouts.like_the_learner(config, processor, images=images):
            trainer = _trainer(resampling_trainer(recipe.resamples), config, job, processor, train_rows, validation_rows, naming)
        return rollouts.adapt(trainer)

    trainer = training.fit(build, job)
    if validation and not training.is_validated(trainer.state):
        trainer.evaluate()
    return training.outcome(trainer, processor, job)


def planned(job: Job, samples: Sequence[Sample], *, recipe: Recipe, shots: int = 0) -> Plan:
    """What `train` will do."""
    config = _config(job, recipe, (), is_validated=False)
    rollouts.require_possible(job, config, images=_most_images(samples, shots))
    processor = backbones.load_processor(job.model, max_pixels=job.max_pixels)
    # A rollout serves num_iterations updates for each of its parts.
    parts = config.steps_per_generation / config.gradient_accumulation_steps
    steps = len(samples) // (config.generation_batch_size // config.num_generations) * parts * config.num_iterations
    return plan(
        "sc_grpo", job, config, samples, processor=processor, settings=SETTINGS, completion=config.max_completion_length,
        steps_an_epoch=steps, shots=shots,
    )  # fmt: skip


def _most_images(samples: Sequence[Sample], shots: int) -> int:
    return max(1 + min(shots, len(sample.references)) for sample in samples)


def _config(job: Job, recipe: Recipe, weights: Sequence[float], *, is_validated: bool) -> Any:
    with nullcontext() if job.keys.get("use_vllm") else _unimported("vllm"):
        from trl import GRPOConfig
        from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: F401
    job = job if job.global_batch_size else replace(job, global_batch_size=recipe.global_batch_size)
    return training.settings(GRPOConfig, job, section="sc_grpo", **_defaults(job, recipe, weights, is_validated=is_validated))


def _defaults(job: Job, recipe: Recipe, weights: Sequence[float], *, is_validated: bool) -> dict[str, Any]:
    """The recipe's settings, and how the training is shown and measured."""
    # Without log_completions there is nothing to look at when a reward misleads; printing them is for no one.
    shown = {"log_completions": True, "num_completions_to_print": 0, "reward_weights": list(weights) or None}
    ordered = {"shuffle_dataset": False} if recipe.balanced else {}
    if not is_validated:
        return {**recipe.trainer, **shown, **ordered}
    # Before the first step; run() is followed by the measurement after the last one.
    measured = {"eval_on_start": True, "eval_strategy": "steps", "eval_steps": NEVER, "num_generations_eval": 2}
    most = job.keys.get("per_device_train_batch_size", 8)
    return {**recipe.trainer, **shown, **ordered, **measured, "per_device_eval_batch_size": most + most % 2}


@contextmanager
def _unimported(package: str) -> Iterator[None]:
    """Makes a package look absent: TRL imports vLLM wherever it is installed, which takes 10 s and is for nothing when it is not used."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def require_trainable(samples: Sequence[Sample], *, shots: int = 0) -> None:
    """Raise DatasetError when there is nothing to learn from: no rows, or an image that cannot be read."""
    if not samples:
        raise DatasetError("SC-GRPO has no rows. Raise prepare.sc_grpo_rows or check the training data, then run `dvc repro prepare`.")
    require_readable(samples, shots=shots)


def rows(samples: Sequence[Sample], *, shots: int = 0, form: bool = False) -> Any:
    """The samples as TRL reads them: prompt, images (decoded when a row is read), and the sample itself for the rewards."""
    from datasets import Dataset

    told = [{**prompt_row(sample, shots=shots, form=form), "sample": sample.to_json()} for sample in samples]
    return Dataset.from_list(told).with_transform(_decoded)


def _decoded(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    if "images" not in batch:
        return batch
    return {**batch, "images": [[open_image(path) for path in paths] for paths in batch["images"]]}


def _trainer(kind: Any, config: Any, job: Job, processor: Any, train_rows: Any, validation_rows: Any, rewards: Sequence[Any]) -> Any:
    # Left padding: generation continues from the last column.
    processor.tokenizer.padding_side = "left"
    trainer = training.trainer_of(
        kind,
        job,
        section="sc_grpo",
        reward_funcs=list(rewards),
        args=config,
        train_dataset=train_rows,
        eval_dataset=validation_rows,
        processing_class=processor,
    )
    return count_images(trainer)


class NamingReward:
    """A reward that is asked completion by completion, so that one that fails names its sample."""

    def __init__(self, reward: TrlReward, *, logs_samples: bool = False) -> None:
        self.__name__ = reward.__name__
        self.reward, self.logs_samples = reward, logs_samples

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], sample: Sequence[str], **others: Any) -> list[float | None]:
        """The reward of each completion; raises ModelError that names the sample when one cannot be computed."""
        ids = [json.loads(row)["id"] for row in sample]
        if self.logs_samples:
            others["log_extra"]("sample", ids)
            _log_answers(others["log_metric"], completions, sample)
        values: list[float | None] = []
        for prompt, completion, row, name in zip(prompts, completions, sample, ids, strict=True):
            with _Naming(self.__name__, name):
                values += [_finite(value) for value in self.reward([prompt], [completion], [row])]
        _log_by_label(others["log_metric"], self.__name__, values, sample)
        return values


def _log_by_label(log_metric: Any, reward: str, values: Sequence[float | None], sample: Sequence[str]) -> None:
    """Mean and deviation of a reward on normal and on anomalous images; TRL logs those of all."""
    truth = [json.loads(row)["anomalous"] for row in sample]
    for label, flag in (("normal", False), ("anomalous", True)):
        earned = [value for value, anomalous in zip(values, truth, strict=True) if anomalous is flag and value is not None]
        for value in earned:
            log_metric(f"rewards/{reward}/{label}/mean", value)
        if len(earned) > 1:
            log_metric(f"rewards/{reward}/{label}/std", stdev(earned))


def _log_answers(log_metric: Any, completions: Sequence[Any], sample: Sequence[str]) -> None:
    """The share of yes among the answers that can be read, of anomalous images, and of answers that cannot be read."""
    said = [Verdict.parse("".join(message["content"] for message in completion)).anomalous for completion in completions]
    readable = [answer for answer in said if answer is not None]
    if readable:
        log_metric("said_anomalous", sum(readable) / len(readable))
    log_metric("are_anomalous", sum(json.loads(row)["anomalous"] for row in sample) / len(sample))
    log_metric("unreadable", 1 - len(readable) / len(said))


class _Naming:
    """Turns any error of a reward into one that says which reward failed on which sample, and where."""

    def __init__(self, reward: str, sample: str) -> None:
        self.reward, self.sample = reward, sample

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not isinstance(error, Exception):
            return
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
        raise ModelError(
            f"reward {self.reward!r} failed on sample {self.sample}: {type(error).__name__}: {error}{where}. Mend the reward."
        ) from error


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"a reward is a finite number or None, not {value}")
    return value


def curve(history: Sequence[Mapping[str, Any]], rewards: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row a step: the total reward, each component under its own name, and the health of the training."""
    names = [name.rpartition(":")[2] for name in rewards]
    renamed = RENAMED | {f"rewards/{name}/mean": f"rewards/{name}" for name in names}
    entries = [{renamed.get(key, key): value for key, value in entry.items()} for entry in history]
    return training.curve(entries, (*COLUMNS[:4], *(f"rewards/{name}" for name in names), *COLUMNS[4:]), of="reward")
