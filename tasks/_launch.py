"""A training stage on several processes of this machine: `python -m tasks._launch N STAGE ARGUMENTS` is what such a stage turns into.

Torch's elastic agent starts the processes, hands SIGTERM on to them, and ends them all when one fails. On several machines torchrun starts
the stage instead (docs/scale.md), and the stage only notices that it has been.
"""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from iadr1.params import Launch

# What saving the largest checkpoint may take after a SIGTERM.
SECONDS_TO_SAVE = 1800
STOPPED = 128 + signal.SIGTERM
PR_SET_PDEATHSIG = 1


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return "WORLD_SIZE" in os.environ


def processes(launch: Launch) -> int:
    """How many processes share the training: the launcher's number, or what the parameters say."""
    return int(os.environ.get("WORLD_SIZE", launch.processes))


def become_launcher(stage: str, arguments: Sequence[str], *, count: int) -> NoReturn:
    """Turn this process into the launcher of `count` processes of the stage; it keeps its id, and with it whoever watches or stops it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "tasks._launch", str(count), stage, *arguments])


def end_with_launcher() -> None:
    """Let a launcher that is killed take this process along (Linux): nobody else would stop it."""
    if is_launched() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def launch(count: int, stage: str, arguments: Sequence[str]) -> int:
    """Run the stage on so many processes until they have ended; the exit code."""
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if 0 < (found := torch.cuda.device_count()) < count:
        sys.stderr.write(
            f"{stage}: {stage}.launch.processes is {count}, but this machine has {found} GPUs. Take as many, or several machines: docs/scale.md.\n"
        )
        return 1
    # The processes say themselves what happened.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    config = LaunchConfig(
        1, 1, count, run_id=stage, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, shutdown_timeout=SECONDS_TO_SAVE
    )
    try:
        elastic_launch(config, sys.executable)("-m", f"tasks.{stage}", *arguments)
    except SignalException as asked:
        return 128 + int(asked.sigval)
    except ChildFailedError as failed:
        return STOPPED if any(failure.exitcode == STOPPED for failure in failed.failures.values()) else 1
    return 0


if __name__ == "__main__":
    sys.exit(launch(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
