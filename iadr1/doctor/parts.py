"""What only shows when it is loaded and started, each part in a process of its own: torch on every device, and the parts of requirements/check.py."""

import subprocess
import sys
from collections.abc import Iterator

from iadr1.doctor.finding import Finding, Place

SECONDS = 600
TORCH = """
import torch
devices = [f"cuda:{at}" for at in range(torch.cuda.device_count())] or ["cpu"]
for device in devices:
    found = torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)
    assert float(found.sum()) == 64 ** 3, f"{device} computes {float(found.sum())}"
print(f"torch {torch.__version__} computes on {', '.join(devices)}")
"""


def parts(place: Place) -> Iterator[Finding]:
    """Load torch and compute, then import and start the other parts: about a minute."""
    yield _ran("torch", [sys.executable, "-c", TORCH], place)
    check = place.folder / "requirements" / "check.py"
    if check.is_file():
        yield _ran("parts", [sys.executable, str(check)], place)


def _ran(area: str, command: list[str], place: Place) -> Finding:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=place.folder)
    except subprocess.TimeoutExpired:
        return Finding(area, "fail", f"does not end within {SECONDS} s", "Look with `nvidia-smi` and `top` at what it waits for.")
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["ended without a word"]
    if done.returncode == 0:
        return Finding(area, "ok", said[-1])
    return Finding(area, "fail", said[-1], "`rm -f .venv/iadr1-setup && make setup` installs the lock again.")
