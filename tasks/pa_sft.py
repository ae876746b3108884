"""Teaches the backbone to perceive, reason and answer: PA-SFT on the prepared chains of thought.

Reads `prepared/pa_sft.jsonl` and `prepared/validation.jsonl`; writes `models/pa_sft`, `reports/pa_sft.csv` (curve), `reports/pa_sft.json`.
A killed run resumes from its last whole checkpoint.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1 import training
from iadr1.params import Params
from iadr1.samples import read_samples
from iadr1.training import Outcome
from tasks._recording import records_speed
from tasks._run import Workspace, run_stage
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

STAGE = "pa_sft"


def main(params: Params, work: Workspace, *, dry_run: bool = False) -> None:
    """Train, save the model and its curve, and log both; `dry_run` only tells the plan."""
    share(params, work, STAGE, dry_run=dry_run)
    from iadr1 import pa_sft

    samples, validation = read_samples(work.prepared / "pa_sft.jsonl"), read_samples(work.prepared / "validation.jsonl")
    shots, answers_only = params.prepare.shots, params.prepare.chains == "answers_only"
    pa_sft.require_trainable([*samples, *validation], shots=shots, answers_only=answers_only)
    quiet_libraries()
    job = job_of(work, params, STAGE, shots, answers_only, model=Path(params.pa_sft.backbone), samples=[*samples, *validation])
    plan = pa_sft.planned(job, samples, shots=shots, answers_only=answers_only)
    if not goes_on(plan, dry_run=dry_run):
        return
    with stage_recording(work, params, STAGE) as run, training_job(work, STAGE, job) as job:
        job = replace(job, callbacks=[*job.callbacks, records_speed(run)]) if run else job
        outcome = pa_sft.train(job, samples, validation=validation, shots=shots, answers_only=answers_only)
        if run is None:
            return
        write_curve(work.reports / "pa_sft.csv", training.curve(outcome.history, pa_sft.COLUMNS, of="loss"))
        metrics = _metrics(outcome, rows=len(samples))
        write_metrics(work.reports / "pa_sft.json", outcome, metrics)
        if outcome.best_step is not None:
            print(
                f"{STAGE}: kept the model of step {outcome.best_step} of {outcome.steps}, whose validation loss is the lowest: {metrics['eval_loss']:.4g}."
            )
        run.log_params(told_by(outcome, job))
        run.log_metrics(metrics)
        run.log_file(work.reports / "pa_sft.csv")


def _metrics(outcome: Outcome, *, rows: int) -> dict[str, Any]:
    """What was measured last until the step whose model was kept."""
    kept = [entry for entry in outcome.history if outcome.best_step is None or entry["step"] <= outcome.best_step]
    last = {key: value for entry in kept for key, value in entry.items()}
    chosen = {} if outcome.best_step is None else {"best_step": outcome.best_step}
    return {"rows": rows, **chosen, **{name: last.get(name) for name in ("loss", "eval_loss", "eval_mean_token_accuracy")}}


if __name__ == "__main__":
    run_stage(STAGE, main, flags=DRY_RUN)
