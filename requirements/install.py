"""Sets the project up in .venv from a committed lock, and does nothing when that has been done: `make setup`, or `make setup PROFILE=gpu`.

python3.11 requirements/install.py [cpu|gpu]
"""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "iadr1-setup"
INPUTS = ("pyproject.toml", "requirements/install.py", "requirements/check.py", "tasks/_environment.py")


def main() -> None:
    """Set up, unless the environment was made from the same files."""
    profile = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    lock = ROOT / "requirements" / f"{profile}.txt"
    if not lock.is_file():
        sys.exit(f"set-up: no lock for the profile '{profile}'; the profiles are cpu and gpu.")
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"set-up: the locks are for Python 3.11; this is {sys.version.split()[0]}. Try: make setup PYTHON=/path/to/python3.11")
    if STAMP.is_file() and STAMP.read_text() == fingerprint(lock):
        return
    started = time.monotonic()
    STAMP.unlink(missing_ok=True)
    install(lock, profile)
    say("checking that everything imports and starts")
    run(PYTHON, "requirements/check.py")
    STAMP.write_text(fingerprint(lock))
    say(f"done in {time.monotonic() - started:.0f} s")


def fingerprint(lock: Path) -> str:
    """The content of everything that the environment is made from, and where it is."""
    files = (lock, *(ROOT / name for name in INPUTS))
    return hashlib.sha256(b"\0".join((str(ROOT).encode(), *(file.read_bytes() for file in files)))).hexdigest()


def install(lock: Path, profile: str) -> None:
    """Make .venv, and put the lock's packages and the project into it."""
    if not PYTHON.is_file():
        say("making .venv")
        run(sys.executable, "-m", "venv", VENV)
    say(f"installing {sum(1 for _ in lock.open())} packages from {lock.relative_to(ROOT)}")
    installer = uv() or (PYTHON, "-m", "pip", "install", "--quiet")
    if not packages(installer, lock, profile):
        sys.exit("set-up: the packages could not be installed; the reason stands above. Run it again when that is mended.")
    run(*installer, "--no-deps", "--no-build-isolation", "--editable", ROOT)
    # Read at the start of every Python process of this environment, the ones that vLLM starts included.
    (site_packages() / "iadr1_environment.pth").write_text("import tasks._environment; tasks._environment.start()\n")


def packages(installer: tuple[str | Path, ...], lock: Path, profile: str) -> bool:
    """Install the lock; a CPU build of torch comes from a wheel folder of this machine, or from where uv knows such builds to be."""
    local = os.environ.get("PIP_FIND_LINKS")
    environment = {**os.environ, **({"UV_FIND_LINKS": local} if local else {})}
    attempts = [("--no-deps", "-r", lock)]
    if profile == "cpu" and not local and "uv" in installer:
        attempts.insert(0, ("--torch-backend", "cpu", "--no-deps", "-r", lock))
    installed = any(subprocess.run([*installer, *options], env=environment, cwd=ROOT).returncode == 0 for options in attempts)
    return installed and complete_torch(installer, lock)


def complete_torch(installer: tuple[str | Path, ...], lock: Path) -> bool:
    """Where only a CUDA build could be had, the lock of the CPU profile does not name the libraries that it needs: add them."""
    if subprocess.run([PYTHON, "-c", "import torch"], capture_output=True).returncode == 0:
        return True
    say("this torch is a build for CUDA: adding its libraries")
    torch = next(line for line in lock.read_text().splitlines() if line.startswith("torch=="))
    return subprocess.run([*installer, torch], cwd=ROOT).returncode == 0


def uv() -> tuple[str | Path, ...] | None:
    """The command line of uv's installer inside .venv, or None where uv cannot be had."""
    arguments = ("pip", "install", "--quiet", "--python", PYTHON)
    if not (VENV / "bin" / "uv").is_file() and subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "uv"]).returncode != 0:
        say("uv could not be installed: going on with pip, which takes minutes longer")
        return None
    return (PYTHON, "-m", "uv", *arguments)


def site_packages() -> Path:
    """Where .venv keeps its packages."""
    return next((VENV / "lib").glob("python3.*")) / "site-packages"


def run(*command: str | Path) -> None:
    """Run a command in the project's root; end with its exit code when it fails."""
    code = subprocess.run(command, cwd=ROOT).returncode
    if code != 0:
        sys.exit(f"set-up: `{' '.join(map(str, command))}` ended with exit code {code}; the reason stands above.")


def say(line: str) -> None:
    """Tell what is being done."""
    print(f"set-up: {line}", flush=True)


if __name__ == "__main__":
    main()
