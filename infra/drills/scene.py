"""Where drills take place: services, a small project that has been released once, and copies of it as it was before a stage."""

import functools
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from infra.drills import commands, results
from infra.drills.commands import Command, Ended, Failed
from infra.drills.proxy import Proxy, Rule
from infra.drills.records import Records, Version
from infra.stack.demonstration import commit, copy_project
from infra.stack.s3 import SIGNED
from infra.stack.services import DATA, RUNS, Stack, stack
from tests.layouts import parts

NAME = "drill"
UNDISTURBED = "iad-r1"
STAGES = ("fetch", "prepare", "validate", "pa_sft", "sc_grpo", "evaluate", "register")
MODEL = "model.safetensors"
SHORTENED = Path(__file__).with_name("shortened")
PARTS_OF = 5 << 20  # bytes, the least that S3 takes; so that the small model is uploaded in parts, as large ones are
ANSWER = 64  # tokens, in which the small backbone can say all
SOURCE = {"parts": {"layout": "mvtec", "folder": "."}}
EXPERIMENT: dict[str, Any] = {
    "fetch": {"source": "s3", "path": f"s3://{DATA}/parts", "manifest": "parts.csv"},
    "prepare": {"train": SOURCE, "pa_sft_rows": 8, "sc_grpo_rows": 8, "validation_rows": 4},
    "validate": {"minimum_rows": 4},
    "pa_sft": {"global_batch_size": 4, "per_device_train_batch_size": 4, "max_steps": 3, "save_steps": 1, "warmup_steps": 0, "logging_steps": 1},
    "sc_grpo": {
        "global_batch_size": 8, "per_device_train_batch_size": 8, "max_completion_length": ANSWER, "max_steps": 2, "save_steps": 1, "warmup_steps": 0,
    },
    "evaluate": {"datasets": SOURCE, "models": ["base", "sc_grpo"], "max_new_tokens": ANSWER},
    "register": {"gates": {"data_validated": True, "lineage_complete": True}},
}  # fmt: skip


class Scene:
    """The services, the project at hand, and the result of the release that nothing disturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.project, self._whole, self.log = self.folder / "project", self.folder / "released", self.folder / "log"
        self.stack = stack(self.folder / "stack")
        ports = {name: service.port for name, service in self.stack.services.items()}
        self.s3, self.mlflow = Proxy(ports["s3"]), Proxy(ports["mlflow"])
        self._lead_through_the_proxies()
        self.records = Records(self.stack)
        self.undisturbed: dict[str, str] = {}
        self.identity = ""
        self.model = UNDISTURBED
        self.tampered: set[str] = set()  # versions whose files a drill has changed in the bucket

    def _lead_through_the_proxies(self) -> None:
        server = self.stack.services["mlflow"]
        server.environment = {
            **server.environment,
            "MLFLOW_S3_ENDPOINT_URL": self.s3.url,
            "AWS_ENDPOINT_URL_S3": self.s3.url,
            "PYTHONPATH": str(SHORTENED),
            "IADR1_DRILL_S3_PART": str(PARTS_OF),
        }
        config = self.folder / "stack" / "dvc" / "config"
        config.write_text(config.read_text().replace(self.stack.services["s3"].address, self.s3.url))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a person's commands."""
        return {
            **os.environ,
            **self.stack.environment,
            "MLFLOW_TRACKING_URI": self.mlflow.url,
            "AWS_ENDPOINT_URL_S3": self.s3.url,
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PYTHONPATH": str(self.project),
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def build(self) -> None:
        """Start the services, put images into the bucket, and release once."""
        self.stack.start()
        copy_project(self.project)
        write_images(self.stack, self.folder / "images", self.project / "parts.csv")
        self.write_experiment()
        commit(self.project, "the drill's images")
        ended = self.release().ended()
        if ended.code != 0:
            raise Failed(f"the release that nothing disturbs ends with exit code {ended.code}: {ended.text[-2000:]}")
        self.undisturbed, self.identity = self.result(), self.staged().identity
        self.project.rename(self._whole)

    def before(self, stage: str, model: str) -> None:
        """The project as it is before a stage; its model has a name of its own, and no version yet."""
        shutil.rmtree(self.project, ignore_errors=True)
        subprocess.run(("cp", "-a", "--reflink=auto", self._whole, self.project), check=True)
        self.model = f"{UNDISTURBED}-{model}"
        self.tampered.clear()
        self.write_experiment(register={"name": self.model})
        forget(self.project, STAGES[STAGES.index(stage) :], ran=stage)

    def write_experiment(self, **changes: Mapping[str, Any]) -> None:
        """Write the experiment, some sections with further keys."""
        tree = dict(EXPERIMENT)
        for section, keys in changes.items():
            tree[section] = {**tree.get(section, {}), **keys}
        (self.project / "experiments" / f"{NAME}.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")

    def release(self, *around: str, **environment: str) -> Command:
        """Start a release; `around` is a command that runs it."""
        return self.command(*around, sys.executable, "-m", "flows.release", "--experiment", NAME, **environment)

    def command(self, *words: str, **environment: str) -> Command:
        """Start a command in the project."""
        return Command(words, project=self.project, environment={**self.environment, **environment}, log=self._log_of())

    def registry(self, *words: str) -> Command:
        """Start `iadr1 registry`."""
        return self.command(
            sys.executable, "-m", "iadr1", "registry", *words, "--name", self.registered, "--params", f"experiments/{NAME}/params.yaml"
        )

    def _log_of(self) -> Path:
        # One file a command: two that run at once must not be mixed.
        self.log.mkdir(parents=True, exist_ok=True)
        return self.log / f"{len(list(self.log.iterdir())):04}-{self.model}.txt"

    @property
    def registered(self) -> str:
        """The name of the registered model."""
        return f"{self.model}-{NAME}"

    def result(self) -> dict[str, str]:
        """What the project's release has made."""
        return results.result(self.project, NAME)

    def versions(self) -> list[Version]:
        """The versions of the registered model."""
        return [version for version in self.records.versions() if version.name == self.registered]

    def staged(self) -> Version:
        """The version in staging; raises Failed when there is none."""
        found = [version for version in self.versions() if "staging" in version.aliases]
        if len(found) != 1:
            raise Failed(
                f"{len(found)} versions of {self.registered} have the alias staging; there are {[str(one) for one in self.versions()]}"
            )
        return found[0]

    def kill(self, module: str) -> None:
        """SIGKILL to the process of a module, `tasks.pa_sft` or `flows.release`."""
        commands.kill(self.project, module)

    def cut_power(self) -> None:
        """SIGKILL to the release, all that it has started, and every service."""
        commands.kill_all(self.project)
        for service in self.stack.services.values():
            service.kill()

    def has(self, pattern: str) -> Callable[[], bool]:
        """Whether a path of the project is there."""
        return lambda: any(self.project.glob(pattern))

    @contextmanager
    def rules(self, *, s3: Rule | None = None, mlflow: Rule | None = None) -> Iterator[None]:
        """What becomes of requests meanwhile."""
        self.s3.rule, self.mlflow.rule = s3 or self.s3.rule, mlflow or self.mlflow.rule
        try:
            yield
        finally:
            self.s3.mend()
            self.mlflow.mend()

    def close(self) -> None:
        """Stop all."""
        commands.kill_all(self.project)
        self.stack.stop()
        self.s3.close()
        self.mlflow.close()


def refused(ended: Ended, *words: str, code: int = 1) -> str:
    """What a person reads; raises Failed unless the command ended with the code and said every word."""
    if ended.code != code or not all(word in ended.text for word in words):
        raise Failed(f"expected exit code {code} and the words {words}; found {ended.code}: {ended.text[-1500:]}")
    return ended.said


def forget(project: Path, stages: tuple[str, ...], *, ran: str) -> None:
    """Make a project as if these stages had not run; of them DVC can restore all but the one that `ran` names, which has to run."""
    lock = project / "experiments" / NAME / "dvc.lock"
    tree = yaml.safe_load(lock.read_text(encoding="utf-8"))
    for name, stage in list(tree["stages"].items()):
        if name.partition("@")[0] in stages:
            for out in stage.get("outs", ()):
                _remove(project / out["path"])
            del tree["stages"][name]
    lock.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    for entry in list((project / ".dvc/cache/runs").glob("*/*/*")):
        if f"tasks.{ran} " in yaml.safe_load(entry.read_text(encoding="utf-8"))["cmd"]:
            shutil.rmtree(entry.parent)  # DVC does not expect it to be empty
    _remove(project / ".checkpoints")  # there are the answers of the evaluation


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_images(services: Stack, folder: Path, manifest: Path) -> None:
    """Draw a few parts, put them into the bucket, and write the manifest that `fetch` reads."""
    parts(folder, normal=12, defects=10, tests=4)
    lines = ["path,bytes,sha256"]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, body = path.relative_to(folder).as_posix(), path.read_bytes()
        put(services, DATA, f"parts/{name}", body)
        lines.append(f"{name},{len(body)},{hashlib.sha256(body).hexdigest()}")
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")


def put(services: Stack, bucket: str, key: str, body: bytes) -> None:
    """Write an object past everybody, as one does who has the keys of the bucket."""
    asked(services, "PUT", bucket, key, body)


def flip(services: Stack, key: str) -> None:
    """Change one byte in the middle of an object of the runs."""
    body = bytearray(asked(services, "GET", RUNS, key))
    body[len(body) // 2] ^= 1
    put(services, RUNS, key, bytes(body))


def asked(services: Stack, method: str, bucket: str, key: str, body: bytes | None = None) -> bytes:
    """One request to the S3 server itself."""
    connection = http.client.HTTPConnection("127.0.0.1", services.services["s3"].port, timeout=60)
    try:
        connection.request(method, f"/{bucket}/{quote(key)}", body, SIGNED)
        answer = connection.getresponse()
        read = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise Failed(f"S3 answers {answer.status} to {method} {bucket}/{key}: {read[:200]!r}")
    return read


@functools.cache
def faketime() -> Path:
    """The library that shows a process another clock; raises Failed where it is not installed."""
    from importlib.util import find_spec

    spec = find_spec("libfaketime")
    own = [Path(place, "vendor/libfaketime/src/libfaketime.so.1") for place in (spec.submodule_search_locations or ())] if spec else []
    found = next((path for path in (*own, *Path("/usr/lib").glob("*/faketime/libfaketime.so.1")) if path.is_file()), None)
    if found is None:
        raise Failed("the clock cannot be moved: install libfaketime (python -m pip install libfaketime)")
    return found
