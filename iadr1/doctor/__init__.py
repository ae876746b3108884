"""Whether this machine can run the project: what was looked at, what was found, and what to do about it (`iadr1 doctor`).

Nothing here loads torch, MLflow or DVC, writes anything, or tells a secret.
"""

from collections.abc import Callable, Iterator

from iadr1.doctor.exposure import addresses, secrets, telemetry
from iadr1.doctor.finding import Finding, Place
from iadr1.doctor.machine import disk, gpu, memory
from iadr1.doctor.packages import known_bad, lock
from iadr1.doctor.parts import parts
from iadr1.doctor.services import prefect, remotes, tracking

CHECKS: tuple[Callable[[Place], Iterator[Finding]], ...] = (
    lock, known_bad, gpu, disk, memory, remotes, tracking, prefect, telemetry, addresses, secrets,
)  # fmt: skip


def findings(place: Place, *, deep: bool = False) -> Iterator[Finding]:
    """Every finding, as it is made; `deep` also loads and starts what is slow to load, in processes of its own."""
    for check in (*CHECKS, *([parts] if deep else [])):
        yield from check(place)
