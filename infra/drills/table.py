"""The drills: what each breaks and when, and where it begins."""

from collections.abc import Callable
from typing import NamedTuple

from infra.drills import kills, others, storage
from infra.drills.scene import Scene


class Drill(NamedTuple):
    """`before` is the stage that the project has just reached; `run` breaks something and answers with what a person reads then."""

    name: str
    breaks: str
    before: str
    run: Callable[[Scene], str]


DRILLS = (
    Drill("kill-fetch", "kill -9 of `fetch` in the middle of its download", "fetch", kills.kill_fetch),
    Drill("kill-prepare", "kill -9 of `prepare` while it writes the samples", "prepare", kills.kill_prepare),
    Drill("kill-validate", "kill -9 of `validate` while it sends its findings to MLflow", "validate", kills.kill_validate),
    Drill("kill-pa-sft", "kill -9 of `pa_sft` while it writes its second checkpoint", "pa_sft", kills.kill_pa_sft),
    Drill("kill-sc-grpo", "kill -9 of `sc_grpo` while it writes its first checkpoint", "sc_grpo", kills.kill_sc_grpo),
    Drill("kill-evaluate", "kill -9 of `evaluate` after its first answers", "evaluate", kills.kill_evaluate),
    Drill("kill-register", "kill -9 of `register` while it uploads the weights", "register", kills.kill_register),
    Drill("kill-flow", "kill -9 of the flow in the middle of PA-SFT", "pa_sft", kills.kill_flow),
    Drill("kill-prefect", "kill -9 of Prefect in the middle of PA-SFT; started again at once", "pa_sft", kills.kill_prefect),
    Drill("kill-mlflow", "kill -9 of MLflow in the middle of PA-SFT; started again at once", "pa_sft", kills.kill_mlflow),
    Drill("kill-postgres", "kill -9 of PostgreSQL in the middle of PA-SFT; started again at once", "pa_sft", kills.kill_postgres),
    Drill("s3-times-out", "S3 gives no answer to `fetch`", "fetch", storage.s3_times_out),
    Drill("s3-refuses", "S3 refuses to let `fetch` read (403)", "fetch", storage.s3_refuses),
    Drill("s3-500", "S3 answers 500 to every upload of the model", "register", storage.s3_returns_500),
    Drill("s3-loses-upload", "S3 loses the weights, a multipart upload that it has confirmed", "register", storage.s3_loses_an_upload),
    Drill("network-cut", "the network is cut in `dvc push`", "register", storage.cut_while_pushing),
    Drill("disk-full", "the disk fills up while `pa_sft` saves its model", "pa_sft", storage.disk_full),
    Drill("clock-jump", "the clock jumps in PA-SFT: 400 days ahead, then 402 back", "pa_sft", others.clock_jump),
    Drill("two-releases", "two releases are started at once", "evaluate", others.two_releases),
    Drill("two-promotions", "two at once promote two versions, then the same", "register", others.two_promotions),
    Drill("corrupted-checkpoint", "a bit of a checkpoint flips", "pa_sft", others.corrupted_checkpoint),
    Drill("tampered-weights", "a byte of the staged weights is changed", "register", others.tampered_weights),
    Drill("power-cut-version", "power cut between version and history", "register", kills.power_cut_after_the_version),
    Drill("power-cut-alias", "power cut between history and alias", "register", kills.power_cut_before_the_alias),
)
