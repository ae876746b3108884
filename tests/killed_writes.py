"""Runs `iadr1 …` or the stage register and kills it before its n-th write to the registry: python -m tests.killed_writes N COMMAND."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

WRITES = (
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_model_version_tag",
)


def kill_before(last: int) -> None:
    """Let this process end by SIGKILL instead of making the write of that number."""
    made = [0]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*given: Any, **named: Any) -> Any:
            made[0] += 1
            if made[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given, **named)

        return instead

    for name in WRITES:
        setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))


def main() -> int:
    """The command's exit code, where it lives to tell it."""
    _, last, command, *arguments = sys.argv
    kill_before(int(last))
    if command == "iadr1":
        from iadr1.cli import main

        return main(arguments)
    from tasks import register
    from tests.test_tracking import release

    register.main(*release(Path.cwd(), arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
