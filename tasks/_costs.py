"""What a stage uses: hours of GPUs and of processor cores, and what they cost where the environment states a price of an hour.

The prices are a machine's, so they stand in its environment and not in the parameters; without them no cost is told. A process that was
killed with SIGKILL accounts for nothing, and what a vLLM server of its own uses is not seen from here.
"""

import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from iadr1.errors import ParamsError

PRICES = {"gpu_hours": "IADR1_PRICE_GPU_HOUR", "core_hours": "IADR1_PRICE_CORE_HOUR"}
FIGURES = (*PRICES, "cost")
_last = (time.monotonic(), 0.0)


def used_since_last() -> dict[str, float]:
    """Hours, and their cost where a price is stated, since this was last asked in this process, the first time since it began."""
    global _last
    before, now = _last, (time.monotonic(), sum(os.times()[:4]))
    _last = now
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    hours = {
        "gpu_hours": (now[0] - before[0]) * gpus(processes) / 3600,
        # The other processes of a training do as much as this one.
        "core_hours": (now[1] - before[1]) * processes / 3600,
    }
    return hours | cost_of(hours)


def gpus(processes: int) -> int:
    """How many GPUs are held: those that this process sees, or one for each process on several machines; none where torch was not needed."""
    torch = sys.modules.get("torch")
    return max(processes, torch.cuda.device_count()) if torch is not None and torch.cuda.is_available() else 0


def cost_of(hours: dict[str, float]) -> dict[str, float]:
    """The cost of so many hours; nothing where the environment states no price."""
    prices = {name: _price(variable) for name, variable in PRICES.items() if os.environ.get(variable)}
    return {"cost": sum(price * hours[name] for name, price in prices.items())} if prices else {}


def _price(variable: str) -> float:
    try:
        return float(os.environ[variable])
    except ValueError as error:
        raise ParamsError(f"{variable} is {os.environ[variable]!r}: the price of an hour is a number, such as 2.5.") from error


def total(runs: Iterable[Any]) -> dict[str, float]:
    """The sums over MLflow runs of what each of them used."""
    found = [run.data.metrics for run in runs]
    return {name: sum(one.get(name, 0.0) for one in found) for name in FIGURES if any(name in one for one in found)}


def newest_of_each_stage(runs: Iterable[Any]) -> list[Any]:
    """Of each stage the finished run that began last: what has made the results that there are now, in whichever release."""
    finished = [run for run in runs if run.info.status == "FINISHED" and "stage" in run.data.tags]
    return list({run.data.tags["stage"]: run for run in sorted(finished, key=lambda run: run.info.start_time)}.values())
