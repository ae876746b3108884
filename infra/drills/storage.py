"""S3 that does not do what it should, a network that is cut, and a disk that is full."""

import os
import threading

from infra.drills.commands import Failed
from infra.drills.kills import after, gets, puts
from infra.drills.proxy import CutOff, Reply, Request
from infra.drills.scene import MODEL, NAME, SHORTENED, Scene, refused
from infra.stack.services import DATA

ROOM = "4m"  # on the small disk: less than the weights of the small backbone
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
BROKEN = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
COMPLETED = b"<?xml version='1.0'?><CompleteMultipartUploadResult><ETag>&quot;0-2&quot;</ETag></CompleteMultipartUploadResult>"


def s3_times_out(scene: Scene) -> str:
    """Every image is asked for, and no answer comes."""
    over = threading.Event()

    def rule(request: Request) -> Reply | None:
        if gets("/parts/")(request):
            over.wait(600)
            raise CutOff
        return None

    # boto waits a minute for each of its attempts.
    shortened = f"{SHORTENED}{os.pathsep}{scene.project}"
    with scene.rules(s3=rule):
        ended = scene.release(PYTHONPATH=shortened, IADR1_DRILL_S3_SECONDS="1").ended()
        over.set()
    return refused(ended, "fetch")


def s3_refuses(scene: Scene) -> str:
    """The keys do not permit to read."""
    with scene.rules(s3=lambda request: Reply(403, DENIED) if gets("/parts/")(request) else None):
        return refused(scene.release().ended(), "no permission to read")


def s3_returns_500(scene: Scene) -> str:
    """The bucket of MLflow fails whatever is uploaded to it; MLflow's client asks seven times, here twice."""
    with scene.rules(s3=lambda request: Reply(500, BROKEN) if puts("/models/")(request) else None):
        return refused(scene.release(MLFLOW_HTTP_REQUEST_MAX_RETRIES="1").ended(), "failed: register", "No version was made")


def s3_loses_an_upload(scene: Scene) -> str:
    """The weights are uploaded in parts, the store says that it has put them together, and has not."""
    lost: list[str] = []

    def rule(request: Request) -> Reply | None:
        if request.method == "POST" and MODEL in request.path and "uploadId=" in request.path:
            lost.append(request.path)
            return Reply(200, COMPLETED)
        return None

    with scene.rules(s3=rule):
        ended = scene.release().ended()
    if not lost:
        raise Failed(f"the weights were not uploaded in parts, so nothing was lost: {ended.text[-1500:]}")
    return refused(ended, "register")


def cut_while_pushing(scene: Scene) -> str:
    """The connection breaks in the middle of the third file, and none is made after it."""
    cut = threading.Event()
    third = after(2, puts(f"/{DATA}/files/"))

    def rule(request: Request) -> Reply | None:
        if third(request):
            cut.set()
            request.read(1)
        if cut.is_set():
            raise CutOff
        return None

    push = ("dvc", "push", f"experiments/{NAME}/dvc.yaml")
    with scene.rules(s3=rule):
        ended = scene.command(*push).ended()
    if ended.code == 0 or not cut.is_set():
        raise Failed(f"the push ended with exit code {ended.code}, {'' if cut.is_set() else 'not '}cut off: {ended.said}")
    refused(scene.command(*push).ended(), code=0)
    refused(scene.command("dvc", "status", "--cloud", f"experiments/{NAME}/dvc.yaml").ended(), "are in sync", code=0)
    if wrong := scene.records.damaged_in_the_remote():
        raise Failed(f"the remote has files whose bytes are not those of their names: {wrong}")
    return next((line for line in ended.text.splitlines() if line.startswith("ERROR: ")), ended.said)


def disk_full(scene: Scene) -> str:
    """The disk of the models is smaller than the weights."""
    (scene.project / "models" / NAME).mkdir(parents=True, exist_ok=True)
    mine = () if os.geteuid() == 0 else ("--map-root-user",)
    mounted = f'mount -t tmpfs -o size={ROOM} drill models/{NAME} && exec "$@"'
    # The mount is seen by the release alone, and gone with it.
    ended = scene.release("unshare", "--mount", *mine, "sh", "-c", mounted, "sh").ended()
    return refused(ended, "the disk is full")
