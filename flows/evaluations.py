"""How many evaluations run side by side, and on which GPUs each: one for each GPU, one without any, or as many as $IADR1_EVALUATIONS says."""

import os
import shutil
import subprocess

from flows.processes import CommandFailed

AT_ONCE = "IADR1_EVALUATIONS"


def slots() -> list[str]:
    """For each evaluation that may run at the same time the GPUs that it is given, as CUDA_VISIBLE_DEVICES; empty: it takes what it finds."""
    found = gpus()
    told = os.environ.get(AT_ONCE)
    if told is not None and (not told.isdecimal() or not int(told)):
        raise CommandFailed(f"${AT_ONCE}: has to be a whole number above 0; found {told!r}.")
    count = int(told) if told else max(1, len(found))
    return [",".join(found[slot % len(found) :: count] if found else ()) for slot in range(count)]


def gpus() -> list[str]:
    """The GPUs that this process may use: $CUDA_VISIBLE_DEVICES, else all that nvidia-smi lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False)
    return listed.stdout.split() if listed.returncode == 0 else []
