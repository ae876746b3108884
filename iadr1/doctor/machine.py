"""What the machine has: GPUs and their driver, room on the disk, memory."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from iadr1.doctor.finding import Finding, Place
from iadr1.doctor.packages import cuda_of_torch

GIB = 1 << 30
# The oldest driver that runs programs of a CUDA version, by NVIDIA's table.
OLDEST_DRIVER = {12: 525, 13: 580}
DISK = {"fail": 2, "warn": 10}  # GiB; a default run leaves about one, a 7B model and its checkpoints sixty
MEMORY = {"fail": 2, "warn": 4}  # GiB
QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader,nounits")


def gpu(place: Place) -> Iterator[Finding]:
    """The GPUs that the driver knows, and whether torch was built for them."""
    del place
    built = cuda_of_torch()
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        yield _without(built, hangs=isinstance(error, subprocess.TimeoutExpired))
        return
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        yield Finding(
            "gpu", "fail", f"nvidia-smi ends with {done.returncode}: {said[0] if said else ''}", "Load the driver again, or reboot."
        )
        return
    for line in done.stdout.strip().splitlines():
        name, driver, total, used = (part.strip() for part in line.split(","))
        yield _gpu(name, driver, f"{int(total) - int(used)} of {total} MiB free", built)


def _without(built: str | None, *, hangs: bool) -> Finding:
    if hangs:
        return Finding("gpu", "fail", "nvidia-smi does not answer", "Reboot: the driver hangs.")
    if built is None:
        return Finding("gpu", "ok", "no NVIDIA driver; torch is a build for the CPU")
    fix = "Install the driver, start the container with --gpus all, or set up for the CPU: `make setup PROFILE=cpu`."
    return Finding("gpu", "warn", f"no NVIDIA driver, but torch is a build for CUDA {built}", fix)


def _gpu(name: str, driver: str, free: str, built: str | None) -> Finding:
    told = f"{name}, driver {driver}, {free}"
    if built is None:
        return Finding("gpu", "warn", f"{told}; torch is a build for the CPU", "`make setup PROFILE=gpu` uses it.")
    oldest = OLDEST_DRIVER.get(int(built.partition(".")[0]), 0)
    if int(driver.partition(".")[0]) < oldest:
        return Finding("gpu", "fail", f"{told}; torch's CUDA {built} needs driver {oldest}", f"Install a driver of {oldest} or newer.")
    return Finding("gpu", "ok", f"{told}; torch is built for CUDA {built}")


def disk(place: Place) -> Iterator[Finding]:
    """Room where the project is."""
    yield _room(
        "disk",
        shutil.disk_usage(place.folder).free / GIB,
        f"free at {place.folder}",
        DISK,
        "`make clean` or `dvc gc --workspace` frees some.",
    )


def memory(place: Place, *, root: Path = Path("/")) -> Iterator[Finding]:
    """Memory that a process could have: the machine's, or what the container may still take."""
    del place
    told = root / "proc" / "meminfo"
    if not told.is_file():
        yield Finding("memory", "ok", "not looked at: only Linux tells it in a file")
        return
    lines = dict(line.split(":", 1) for line in told.read_text(encoding="utf-8").splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) / (1 << 20)
    group = root / "sys" / "fs" / "cgroup"
    if (group / "memory.max").is_file() and (most := (group / "memory.max").read_text().strip()) != "max":
        free = min(free, (int(most) - int((group / "memory.current").read_text())) / GIB)
    yield _room(
        "memory", free, "free", MEMORY, "End other programs, or take a smaller per_device_train_batch_size and evaluate.batch_size."
    )


def _room(area: str, free: float, where: str, limits: dict[str, int], fix: str) -> Finding:
    told = f"{free:.1f} GiB {where}"
    if free < limits["fail"]:
        return Finding(area, "fail", told, fix)
    return Finding(area, "warn", told, fix) if free < limits["warn"] else Finding(area, "ok", told)
