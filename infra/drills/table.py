"""The drills: what each breaks and when, where it begins, and the words of the list that it answers."""

from collections.abc import Callable
from typing import NamedTuple

from infra.drills import kills, others, storage
from infra.drills.scene import Scene


class Drill(NamedTuple):
    """`before` is the stage that the project has just reached; `run` breaks something and answers with what a person reads then."""

    name: str
    answers: str
    breaks: str
    before: str
    run: Callable[[Scene], str]


STAGE, SERVICE, S3 = "kill -9 of each stage", "kill -9 of PostgreSQL, MLflow, Prefect", "S3 that fails"

DRILLS = (
    Drill("kill-fetch", STAGE, "kill -9 of `fetch` in the middle of its download", "fetch", kills.kill_fetch),
    Drill("kill-prepare", STAGE, "kill -9 of `prepare` while it writes the samples", "prepare", kills.kill_prepare),
    Drill("kill-validate", STAGE, "kill -9 of `validate` while it sends its pages to MLflow", "validate", kills.kill_validate),
    Drill("kill-pa-sft", STAGE, "kill -9 of `pa_sft` while it writes its second checkpoint", "pa_sft", kills.kill_pa_sft),
    Drill("kill-sc-grpo", STAGE, "kill -9 of `sc_grpo` while it writes its first checkpoint", "sc_grpo", kills.kill_sc_grpo),
    Drill("kill-evaluate", STAGE, "kill -9 of `evaluate` after its first answers", "evaluate", kills.kill_evaluate),
    Drill("kill-register", STAGE, "kill -9 of `register` while it uploads the weights", "register", kills.kill_register),
    Drill("kill-flow", "kill -9 of the flow", "kill -9 of the flow in the middle of PA-SFT", "pa_sft", kills.kill_flow),
    Drill("kill-prefect", SERVICE, "kill -9 of the Prefect server in the middle of PA-SFT; started again at once", "pa_sft", kills.kill_prefect),
    Drill("kill-mlflow", SERVICE, "kill -9 of the MLflow server in the middle of PA-SFT; started again at once", "pa_sft", kills.kill_mlflow),
    Drill("kill-postgres", SERVICE, "kill -9 of PostgreSQL in the middle of PA-SFT; started again at once", "pa_sft", kills.kill_postgres),
    Drill("s3-times-out", S3, "S3 gives no answer to `fetch`", "fetch", storage.s3_times_out),
    Drill("s3-refuses", S3, "S3 refuses to let `fetch` read (403)", "fetch", storage.s3_refuses),
    Drill("s3-500", S3, "S3 answers 500 to every upload of `register`", "register", storage.s3_returns_500),
    Drill("s3-loses-upload", S3, "S3 loses the weights, a multipart upload that it has confirmed", "register", storage.s3_loses_an_upload),
    Drill("network-cut", "network cut while pushing", "the network is cut in the middle of `dvc push`", "register", storage.cut_while_pushing),
    Drill("disk-full", "disk full", "the disk fills up while `pa_sft` saves its model", "pa_sft", storage.disk_full),
    Drill("clock-jump", "clock jump", "the clock jumps 400 days ahead in PA-SFT, and 402 days back in SC-GRPO", "pa_sft", others.clock_jump),
    Drill("two-releases", "two releases at once", "two releases of a project are started at once", "evaluate", others.two_releases),
    Drill("two-promotions", "two promotions at once", "two people promote at once: two versions, then the same one", "register", others.two_promotions),
    Drill("corrupted-checkpoint", "corrupted checkpoint", "a bit of the newest checkpoint of `pa_sft` flips", "pa_sft", others.corrupted_checkpoint),
    Drill("tampered-weights", "tampered weight file", "a byte of the weights is changed: of the version in staging, and of the model in the project", "register", others.tampered_weights),
    Drill("power-cut-version", "power cut between registration and alias", "the power is cut between the version and its entry in the history", "register", kills.power_cut_after_the_version),
    Drill("power-cut-alias", "power cut between registration and alias", "the power is cut between the history's entry and the alias", "register", kills.power_cut_before_the_alias),
)  # fmt: skip
