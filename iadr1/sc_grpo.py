"""SC-GRPO: reward consistent reasoning, right answers, places and types, with `trl.GRPOTrainer`."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from iadr1 import backbones, training
from iadr1.errors import DatasetError, ModelError
from iadr1.image_counts import count_images
from iadr1.images import open_image, require_readable
from iadr1.pa_sft import prompt_row
from iadr1.rewards import TrlReward, trl_rewards
from iadr1.samples import Sample
from iadr1.training import Job, Outcome

# The paper's and its code's settings, where TRL's own defaults differ; params.yaml overrides each of them.
PAPER = {
    "num_generations": 4,
    "beta": 0.04,
    "epsilon": 0.2,
    "temperature": 0.9,
    "top_p": 0.9,
    "top_k": 50,
    "loss_type": "grpo",
    "scale_rewards": "group",
    "use_bias_correction_kl": False,
    "max_completion_length": 512,
}
NEVER = 2**31
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
    shots: int = 0,
) -> Outcome:
    """Tune `job.model` on its own completions for the samples and save the result; resumes where a killed run has left a checkpoint.

    The rewards of the validation samples are measured before and after: a step's own reward says as much about its few prompts as about the model.
    """
    functions, weights = trl_rewards(preset, rewards, grid)
    require_trainable([*samples, *validation], shots=shots)
    with nullcontext() if job.keys.get("use_vllm") else _unimported("vllm"):
        from trl import GRPOConfig
        from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: F401
    # Without log_completions there is nothing to look at when a reward misleads; printing them is for no one.
    shown = {"log_completions": True, "num_completions_to_print": 0, "reward_weights": weights}
    # Before the first step; run() is followed by the measurement after the last one.
    measured = {"eval_on_start": True, "eval_strategy": "steps", "eval_steps": NEVER, "num_generations_eval": 2}
    measured["per_device_eval_batch_size"] = job.keys.get("per_device_train_batch_size", 8)
    config = training.settings(GRPOConfig, job, section="sc_grpo", **PAPER, **shown, **(measured if validation else {}))
    processor = backbones.load_processor(job.model, max_pixels=job.max_pixels)
    naming = [NamingReward(function, logs_samples=not at) for at, function in enumerate(functions)]
    trainer = _trainer(config, job, processor, rows(samples, shots=shots), rows(validation, shots=shots) if validation else None, naming)
    training.run(trainer, job)
    if validation and not training.is_validated(trainer.state):
        trainer.evaluate()
    backbones.save(trainer.model, processor, job.into)
    return Outcome(trainer.state.log_history, trainer.state.global_step, backbones.part_sizes(trainer.model))


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


def rows(samples: Sequence[Sample], *, shots: int = 0) -> Any:
    """The samples as TRL reads them, each with up to `shots` references: prompt, images (decoded when a row is read), and itself for the rewards."""
    from datasets import Dataset

    return Dataset.from_list([{**prompt_row(sample, shots=shots), "sample": sample.to_json()} for sample in samples]).with_transform(
        _decoded
    )


def _decoded(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    if "images" not in batch:
        return batch
    return {**batch, "images": [[open_image(path) for path in paths] for paths in batch["images"]]}


def _trainer(config: Any, job: Job, processor: Any, train_rows: Any, validation_rows: Any, rewards: Sequence[Any]) -> Any:
    from trl import GRPOTrainer

    # Left padding: generation continues from the last column.
    processor.tokenizer.padding_side = "left"
    trainer = GRPOTrainer(
        str(job.model),
        reward_funcs=list(rewards),
        args=config,
        train_dataset=train_rows,
        eval_dataset=validation_rows,
        processing_class=processor,
    )
    for model in (trainer.model, trainer.ref_model):
        if model is not None:
            backbones.pack_images(model)
    backbones.freeze(trainer.model, job.freeze)
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
        values: list[float | None] = []
        for prompt, completion, row, name in zip(prompts, completions, sample, ids, strict=True):
            with _Naming(self.__name__, name):
                values += [_finite(value) for value in self.reward([prompt], [completion], [row])]
        return values


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
