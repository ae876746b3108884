"""SIGKILL at a chosen moment: to each stage, to the flow, to each service, and to everything at once."""

import signal
import threading
from collections.abc import Callable

from infra.drills import commands
from infra.drills.commands import SECONDS_TO_GO, Ended, Failed
from infra.drills.proxy import CutOff, Reply, Request, Rule
from infra.drills.scene import MODEL, NAME, Scene, refused

KILLED = "was killed; run again to go on where it stopped"
ALIAS = "/registered-models/alias"
VERSION = "/model-versions/create"


def once(moment: Callable[[Request], bool], act: Callable[[], None]) -> Rule:
    """At the first request that fits, do something before it is passed on."""
    done = threading.Lock()

    def rule(request: Request) -> Reply | None:
        if moment(request) and done.acquire(blocking=False):
            act()
        return None

    return rule


def after(count: int, moment: Callable[[Request], bool]) -> Callable[[Request], bool]:
    """The request after so many that fit."""
    seen = iter(range(count + 1, 0, -1))
    lock = threading.Lock()

    def fits(request: Request) -> bool:
        if not moment(request):
            return False
        with lock:
            return next(seen, 0) == 1

    return fits


def puts(part: str) -> Callable[[Request], bool]:
    """Whether a file is being written whose name holds a part."""
    return lambda request: request.method == "PUT" and part in request.path


def gets(part: str) -> Callable[[Request], bool]:
    """Whether a file is being read whose name holds a part."""
    return lambda request: request.method == "GET" and part in request.path


def posts(part: str) -> Callable[[Request], bool]:
    """Whether something is told to the server at a path that holds a part."""
    return lambda request: request.method == "POST" and part in request.path


def killed_at_upload(scene: Scene, stage: str, part: str) -> str:
    """Kill a stage while it sends a file whose name holds a part."""
    with scene.rules(s3=once(puts(part), lambda: scene.kill(f"tasks.{stage}"))):
        return refused(scene.release().ended(), KILLED)


def killed_at_file(scene: Scene, stage: str, pattern: str) -> str:
    """Kill a stage when a path is there."""
    release = scene.release()
    release.until(scene.has(pattern), f"there was {pattern}")
    scene.kill(f"tasks.{stage}")
    return refused(release.ended(), KILLED)


def kill_fetch(scene: Scene) -> str:
    """In the middle of the download, which the flow tries again by itself."""
    killed: list[str] = []

    def act() -> None:
        scene.kill("tasks.fetch")
        killed.append("fetch")

    with scene.rules(s3=once(after(10, gets("/parts/")), act)):
        ended = scene.release().ended()
    if not killed:
        raise Failed(f"fetch was not killed: {ended.text[-1500:]}")
    return told(ended)


def kill_prepare(scene: Scene) -> str:
    """While the samples are written."""
    return killed_at_file(scene, "prepare", f"data/{NAME}/.prepared.partial/*")


def kill_validate(scene: Scene) -> str:
    """While its findings go to MLflow."""
    return killed_at_upload(scene, "validate", "validation.json")


def kill_pa_sft(scene: Scene) -> str:
    """While the second checkpoint is written."""
    return killed_at_file(scene, "pa_sft", f".checkpoints/{NAME}/pa_sft/*/checkpoint-2")


def kill_sc_grpo(scene: Scene) -> str:
    """While the first checkpoint is written."""
    return killed_at_file(scene, "sc_grpo", f".checkpoints/{NAME}/sc_grpo/*/checkpoint-1")


def kill_evaluate(scene: Scene) -> str:
    """After the first answers."""
    return killed_at_file(scene, "evaluate", f".checkpoints/{NAME}/answers/**/*.jsonl")


def kill_register(scene: Scene) -> str:
    """While the weights are uploaded."""
    return killed_at_upload(scene, "register", MODEL)


def kill_flow(scene: Scene) -> str:
    """In the middle of PA-SFT: what the flow had started has to end with it."""
    release = scene.release()
    release.until(scene.has(f".checkpoints/{NAME}/pa_sft/*/checkpoint-1"), "there was a checkpoint")
    scene.kill("flows.release")
    ended = release.ended()
    if found := commands.left_behind(scene.project):
        raise Failed(f"the flow is gone, and these still work: {found}")
    refused(ended, code=-signal.SIGKILL)
    return "Killed"


def kill_service(scene: Scene, name: str) -> str:
    """Kill a service when PA-SFT has a checkpoint, and start it anew while the release runs."""
    release = scene.release()
    release.until(scene.has(f".checkpoints/{NAME}/pa_sft/*/checkpoint-1"), "there was a checkpoint")
    scene.stack.services[name].kill()
    scene.stack.services[name].start()
    return told(release.ended())


def told(ended: Ended) -> str:
    """What became of a release that may go on, or fail so that a person sees it."""
    if ended.code not in (0, 1):
        raise Failed(f"the release ends with exit code {ended.code}: {ended.text[-1500:]}")
    return "the release went on: " * (ended.code == 0) + ended.said


def kill_prefect(scene: Scene) -> str:
    """In the middle of PA-SFT."""
    return kill_service(scene, "prefect")


def kill_mlflow(scene: Scene) -> str:
    """In the middle of PA-SFT."""
    return kill_service(scene, "mlflow")


def kill_postgres(scene: Scene) -> str:
    """In the middle of PA-SFT."""
    return kill_service(scene, "postgres")


def power_cut(scene: Scene, moment: Callable[[Request], bool]) -> str:
    """Kill everything when the registry is about to be told something, which it then is not."""
    dark = threading.Event()

    def act() -> None:
        scene.cut_power()
        dark.set()
        raise CutOff

    with scene.rules(mlflow=once(moment, act)):
        ended = scene.release().ended()
        if not dark.wait(SECONDS_TO_GO if ended.code < 0 else 0):
            raise Failed(f"the moment did not come: {ended.text[-1500:]}")
    scene.stack.start()
    versions = scene.versions()
    if len(versions) != 1 or versions[0].aliases:
        raise Failed(f"expected one version without an alias; found {[(str(one), sorted(one.aliases)) for one in versions]}")
    return "nothing: the power is gone"


def power_cut_before_the_alias(scene: Scene) -> str:
    """Between the history's entry and the alias that shows it."""
    return power_cut(scene, posts(ALIAS))


def power_cut_after_the_version(scene: Scene) -> str:
    """Between the version and the history's entry that makes it live."""
    return power_cut(scene, lambda request: posts(VERSION)(request) and f"{scene.registered}.history".encode() in request.body)
