"""One release of a project at a time: a lock file beside DVC's own, and where a Prefect server is named a concurrency limit, which other machines see."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from flows.processes import CommandFailed

# A flow that is killed holds the server's limit for so long.
LEASE_SECONDS = 60.0


BUSY = 75  # EX_TEMPFAIL of sysexits.h: try again later


class Busy(CommandFailed):
    """Another release of the project runs; the message says which."""


def limit_of(name: str) -> str:
    """The name of the server's concurrency limit for the releases of an experiment, or of the project's own ("root")."""
    return f"iadr1-release-{name}"


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the project's releases of that name to this one; raises Busy where another one runs. A kill lets go of both locks."""
    with _here(name), _everywhere(name):
        yield


@contextmanager
def _here(name: str) -> Iterator[None]:
    path = Path(".dvc/tmp", f"release-{name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise _busy(file.read()) from error
        file.truncate(0)
        file.write(
            f"process {os.getpid()} of {socket.gethostname()}, flow run {flow_run.name}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        )
        file.flush()
        yield
        file.truncate(0)


@contextmanager
def _everywhere(name: str) -> Iterator[None]:
    if not PREFECT_API_URL.value():
        yield
        return
    limit = limit_of(name)
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.upsert_global_concurrency_limit_by_name(limit, 1)
    with ExitStack() as held:
        try:
            # A server that is down for a while does not end a training.
            held.enter_context(
                concurrency(limit, max_retries=0, lease_duration=LEASE_SECONDS, strict=True, raise_on_lease_renewal_failure=False)
            )
        except Exception as error:
            if "423" not in str(error.__cause__):
                raise
            raise _busy(
                f"another machine or folder holds the limit {limit} of {PREFECT_API_URL.value()}, or one that was killed less than a minute ago "
                f"(if none runs at all: prefect gcl update {limit} --active-slots 0)"
            ) from error
        yield


def _busy(who: str) -> Busy:
    return Busy(f"another release of this project runs: {who or 'a process that just started'}. Wait for it, or stop it.", BUSY)
