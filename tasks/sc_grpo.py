"""Rewards consistent reasoning, right answers, places and types: SC-GRPO on the model's own completions, from the PA-SFT model.

Reads `models/pa_sft`, `prepared/sc_grpo.jsonl` and `prepared/validation.jsonl`; writes `models/sc_grpo`, `reports/sc_grpo.csv` (curve) and
`reports/sc_grpo.json`.
A killed run resumes from its last whole checkpoint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1.params import Params
from iadr1.recipes import Recipe, recipe_named
from iadr1.samples import Sample, read_samples
from iadr1.training import Job
from tasks._recording import log_ends, records_completions, records_speed
from tasks._run import Workspace, run_stage
from tasks._tracking import StageRun
from tasks._training import (
    DRY_RUN,
    goes_on,
    job_of,
    quiet_libraries,
    share,
    stage_recording,
    told_by,
    training_job,
    write_curve,
    write_metrics,
)

STAGE = "sc_grpo"


def main(params: Params, work: Workspace, *, dry_run: bool = False) -> None:
    """Train, save the model and its curve, and log both with the last completions; `dry_run` only tells the plan."""
    share(params, work, STAGE, dry_run=dry_run)
    from iadr1 import sc_grpo

    told, grid, shots = params.sc_grpo, params.prepare.grid, params.prepare.shots
    recipe = recipe_named(told.recipe, balanced=told.balanced, resamples=told.resamples)
    samples, validation = read_samples(work.prepared / "sc_grpo.jsonl"), read_samples(work.prepared / "validation.jsonl")
    sc_grpo.require_trainable([*samples, *validation], shots=shots)
    quiet_libraries()
    form = told.start == "base"
    start = Path(params.pa_sft.backbone) if form else work.pa_sft
    job = job_of(work, params, STAGE, grid, shots, model=start, samples=[*samples, *validation])
    plan = sc_grpo.planned(job, samples, recipe=recipe, shots=shots)
    if not goes_on(plan, dry_run=dry_run):
        return
    with stage_recording(work, params, STAGE) as run, training_job(work, STAGE, job) as job:
        job = _recorded(job, run, [*samples, *validation], recipe=recipe, every=told.table_steps)
        outcome = sc_grpo.train(
            job, samples, validation=validation, preset=told.preset, rewards=told.rewards, grid=grid, recipe=recipe, shots=shots, form=form
        )
        if run is None:
            return
        rows = sc_grpo.curve(outcome.history, told.rewards)
        write_curve(work.reports / "sc_grpo.csv", rows)
        write_metrics(work.reports / "sc_grpo.json", outcome, _metrics(rows, outcome.history))
        run.log_params(told_by(outcome, job))
        run.log_metrics(_metrics(rows, outcome.history))
        run.log_file(work.reports / "sc_grpo.csv")
        log_ends(run, job.checkpoints, [*samples, *validation])


def _recorded(job: Job, run: StageRun | None, samples: Sequence[Sample], *, recipe: Recipe, every: int) -> Job:
    if run is None:
        return job
    # The rollout, and the reference where there is one.
    passes = 1 + bool(job.keys.get("beta", recipe.trainer["beta"]))
    recording = (records_speed(run, passes=passes), records_completions(run, samples, every=every))
    return replace(job, callbacks=[*job.callbacks, *recording])


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


if __name__ == "__main__":
    run_stage(STAGE, main, flags=DRY_RUN)
