"""How fast a training is: the operations a token needs, the share of a device's peak, and a recording that leaves out what is no training."""

from types import SimpleNamespace
from typing import Any

import pytest

from iadr1.throughput import PEAKS, operations_a_token, peak_of, utilization
from tasks import _recording


@pytest.mark.parametrize(
    "device, peak",
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_the_peak_is_known_by_a_part_of_the_devices_name(device: str, peak: float | None) -> None:
    assert peak_of(device) == peak and all(value > 1e14 for value in PEAKS.values())


def test_a_token_needs_six_operations_a_trained_parameter_and_two_more_for_each_further_pass() -> None:
    assert operations_a_token(100, 100) == 600
    assert operations_a_token(100, 0) == 400
    assert operations_a_token(100, 100, passes=2) == 1000


def test_utilization_is_a_share_of_the_peak() -> None:
    # A model of 7B at 3,000 tokens a second on one H100: 3,000 x 6 x 7e9 = 126e12 of 989e12.
    assert utilization(3000, operations_a_token(7 * 10**9, 7 * 10**9), PEAKS["H100"]) == pytest.approx(0.1274, abs=1e-4)


class Run:
    def __init__(self) -> None:
        self.logged: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.logged.append((step, metrics))


def test_the_speed_counts_the_steps_alone_and_goes_on_from_a_resumed_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(_recording.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(_recording, "_peak", lambda args: 1200.0)
    run, model = Run(), SimpleNamespace(parameters=lambda: [SimpleNamespace(numel=lambda: 1, requires_grad=True)])
    told: Any = _recording.records_speed(run, passes=2)  # type: ignore[arg-type]
    state = SimpleNamespace(num_input_tokens_seen=1000, global_step=7)
    told.on_train_begin(None, state, None, model=model)
    for tokens, evaluation in ((1100, 50.0), (1160, 0.0)):
        told.on_step_begin()
        now[0] += 2.0
        told.on_step_end()
        now[0] += evaluation
        told.on_log(None, state, None, logs={"loss": 0.1, "num_tokens": tokens})
    told.on_log(None, state, None, logs={"eval_loss": 0.1})
    assert run.logged == [(7, {"tokens_per_second": 50.0, "mfu": 50 * 10 / 1200}), (7, {"tokens_per_second": 30.0, "mfu": 30 * 10 / 1200})]
