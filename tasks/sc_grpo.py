"""Rewards consistent reasoning, right answers, places and types: SC-GRPO on the model's own completions, from the PA-SFT model.

Reads `models/pa_sft`, `prepared/sc_grpo.jsonl` and `prepared/validation.jsonl`; writes `models/sc_grpo`, `reports/sc_grpo.csv` (curve) and
`reports/sc_grpo.json`.
A killed run resumes from its last whole checkpoint.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iadr1.params import Params
from iadr1.recipes import recipe_named
from iadr1.samples import Sample, read_samples
from tasks._run import Workspace, run_stage
from tasks._tracking import StageRun
from tasks._training import DRY_RUN, flat_parts, goes_on, job_of, quiet_libraries, stage_recording, training_job, write_curve, write_metrics

STAGE = "sc_grpo"
TABLE_ROWS = 16


def main(params: Params, work: Workspace, *, dry_run: bool = False) -> None:
    """Train, save the model and its curve, and log both with the last completions; `dry_run` only tells the plan."""
    from iadr1 import sc_grpo

    told, grid, shots = params.sc_grpo, params.prepare.grid, params.prepare.shots
    recipe = recipe_named(told.recipe, balanced=told.balanced, resamples=told.resamples)
    samples, validation = read_samples(work.prepared / "sc_grpo.jsonl"), read_samples(work.prepared / "validation.jsonl")
    sc_grpo.require_trainable([*samples, *validation], shots=shots)
    quiet_libraries()
    job = job_of(work, params, STAGE, grid, shots, model=work.models / "pa_sft", samples=[*samples, *validation])
    plan = sc_grpo.planned(job, samples, recipe=recipe, shots=shots)
    if not goes_on(plan, dry_run=dry_run):
        return
    with stage_recording(work, params, STAGE) as run, training_job(work, STAGE, job) as job:
        outcome = sc_grpo.train(
            job, samples, validation=validation, preset=told.preset, rewards=told.rewards, grid=grid, recipe=recipe, shots=shots
        )
        if run is None:
            return
        rows = sc_grpo.curve(outcome.history, told.rewards)
        write_curve(work.reports / "sc_grpo.csv", rows)
        write_metrics(work.reports / "sc_grpo.json", outcome, _metrics(rows, outcome.history))
        run.log_params(flat_parts(outcome))
        run.log_metrics(_metrics(rows, outcome.history))
        run.log_file(work.reports / "sc_grpo.csv")
        _log_completions(run, job.checkpoints, [*samples, *validation])


def _metrics(rows: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rewards of the validation samples before and after, those at the two ends of the training, and the health at its end."""
    steps = [row for row in rows if row["reward"] is not None]
    first, last = _ends(steps)
    means = {f"{name}_{when}": _mean(part, name) for when, part in (("start", first), ("end", last)) for name in _components(rows)}
    measured = [entry for entry in history if "eval_reward" in entry]
    for when, entry in zip(("start", "end"), measured[:1] + measured[-1:], strict=False):
        means |= {f"validation_{name}_{when}": entry.get(f"eval_{name}", entry.get(f"eval_{name}/mean")) for name in _components(rows)}
    return means | {name: _mean(last, name) for name in ("kl", "completion_length", "clipped_ratio", "frac_reward_zero_std")}


def _ends(steps: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The steps of the first and of the last epoch, which see the same prompts; of the first and the last tenth where there are not two epochs."""
    total = steps[-1]["epoch"] if steps else 0.0
    span = 1.0 if total >= 2 else total / 10
    first = [row for row in steps if row["epoch"] <= span] or list(steps[:1])
    return first, [row for row in steps if row["epoch"] > total - span]


def _components(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return ["reward", *(name for name in (rows[0] if rows else ()) if name.startswith("rewards/"))]


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return sum(values) / len(values) if values else None


def _log_completions(run: StageRun, checkpoints: Path, samples: Sequence[Sample]) -> None:
    """The completions of the first and the last steps as tables: what was said to which image, and what it earned."""
    import pandas

    tables = sorted((checkpoints / "completions").glob("*.parquet"))
    images = {sample.id: sample.images[-1] for sample in samples}
    for name, chosen in (("first", tables[:1]), ("last", tables[-1:])):
        for path in chosen:
            frame = pandas.read_parquet(path).head(TABLE_ROWS)
            run.log_table(f"completions_{name}", _columns(frame, images))


def _columns(frame: Any, images: Mapping[str, str]) -> dict[str, list[Any]]:
    told = {name: frame[name].tolist() for name in frame.columns if name not in ("prompt", "completion")}
    said = ["".join(message["content"] for message in completion) for completion in frame["completion"]]
    return {"image": [images[name] for name in told["sample"]], "completion": said, **told}


if __name__ == "__main__":
    run_stage(STAGE, main, flags=DRY_RUN)
