"""What watches a training: collapse stops it and keeps the last good checkpoint, SIGTERM saves and stops, a hang dumps every stack and ends it."""

import faulthandler
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from iadr1.errors import ModelError

# The file descriptor: the object may be closed or captured when it is needed.
STDERR = 2
# Seconds within which two SIGTERMs are one wish: a cluster sends it to all processes, and the launcher once more to its own.
SAME_WISH = 5.0
# TRL's own name for |Δ log p| between rollout and learner, followed by /mean and /max.
DIFFERENCE = "sampling/sampling_logp_difference"
Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond these a training has collapsed; each is far from what a healthy run shows. A single entry is judged by `mismatch` and by whether it
    is finite, the rest by `window` log entries.

    `window`        entries whose median counts, so that one odd batch decides nothing.
    `reward`        least share of the best median reward so far: a policy that loses half of what it earned has broken down.
    `kl`            most nats a token from the reference: healthy runs stay below a tenth; beyond 2 the text has nothing of the PA-SFT model's.
    `entropy`       least nats a token: below, all completions of a prompt are the same, and no update can come from them.
    `entropy_rise`  most nats a token above the start: the model forgets what it was taught, on the way to random tokens.
    `length`        least share of the tokens of a completion at the start: the reasoning is gone.
    `clipped`       most completions that end by the limit of tokens: what is paid is not what the model meant to say.
    `dead`          most groups whose completions all earn the same: a step without gradient.
    `one_class`     most answers of one class while the prompts have both (a tenth at least): the answer no longer depends on the image.
    `loss_rise`     most nats a token above the best median loss of PA-SFT: it diverges.
    `mismatch`      most nats a token between vLLM's and the learner's log-probabilities of what vLLM said, at any step: the same model in another
                    precision stays below 0.05. vLLM's are of what top-p and top-k leave: 0.9 adds 0.11 at most, and 50 only to a model whose
                    next token is nearly random.
    """

    window: int = 10
    reward: float = 0.5
    kl: float = 2.0
    entropy: float = 0.001
    entropy_rise: float = 2.0
    length: float = 0.2
    clipped: float = 0.95
    dead: float = 0.98
    one_class: float = 0.99
    loss_rise: float = 1.0
    mismatch: float = 0.25


def collapse(history: Entries, limits: Limits) -> str | None:
    """Why the training that has logged this has collapsed, and what may help; None while it is healthy."""
    entries = [entry for entry in history if "loss" in entry]
    for name in ("loss", "grad_norm", "reward", "kl"):
        if entries and not _is_finite(entries[-1].get(name)):
            return f"{name} is {entries[-1][name]} at step {entries[-1]['step']}. Lower learning_rate, or train in float32"
    if entries and (reason := _mismatch(entries[-1], limits)):
        return reason
    if len(entries) < limits.window:
        return None
    checks = _POLICY_CHECKS if "reward" in entries[-1] else _LOSS_CHECKS
    return next((reason for check in checks if (reason := check(entries, limits))), None)


def _mismatch(entry: Mapping[str, Any], limits: Limits) -> str | None:
    mean, largest = (entry.get(f"{DIFFERENCE}/{name}") for name in ("mean", "max"))
    if mean is None or mean <= limits.mismatch:
        return None
    return (
        f"vLLM and the learner differ by {mean:.3g} nats a token on what vLLM said (at most {largest:.3g}): they are not the same model. "
        "Check that both have the same weights, max_pixels and precision, or set use_vllm to false"
    )


def _is_finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)


def _values(entries: Entries, name: str) -> list[float]:
    return [entry[name] for entry in entries if entry.get(name) is not None]


def _ends(entries: Entries, name: str, window: int) -> tuple[float, float] | None:
    """The medians of the first and of the last `window` entries."""
    first, last = _values(entries[:window], name), _values(entries[-window:], name)
    return (median(first), median(last)) if first and last else None


def _best(entries: Entries, name: str, limits: Limits, choose: Callable[[list[float]], float]) -> float:
    """The best median of any whole window: a single good entry is not what a training has reached."""
    windows = [_values(entries[at : at + limits.window], name) for at in range(0, len(entries) - limits.window + 1, limits.window)]
    return choose([median(window) for window in windows if window])


def _reward(entries: Entries, limits: Limits) -> str | None:
    ends = _ends(entries, "reward", limits.window)
    best = _best(entries, "reward", limits, max) if ends else 0.0
    if ends is None or best <= 0 or ends[1] >= limits.reward * best:
        return None
    return f"the reward fell to {ends[1]:.3g} from {best:.3g}. Lower learning_rate, or raise beta"


def _kl(entries: Entries, limits: Limits) -> str | None:
    ends = _ends(entries, "kl", limits.window)
    if ends is None or ends[1] <= limits.kl:
        return None
    return f"the policy is {ends[1]:.3g} nats a token from the reference. Lower learning_rate, or raise beta"


def _entropy(entries: Entries, limits: Limits) -> str | None:
    ends = _ends(entries, "entropy", limits.window)
    if ends is None:
        return None
    if ends[1] < limits.entropy:
        return f"the entropy is {ends[1]:.2g} nats a token: every completion is the same. Raise temperature, or set entropy_coef"
    if ends[1] > ends[0] + limits.entropy_rise:
        return f"the entropy rose to {ends[1]:.3g} nats a token from {ends[0]:.3g}. Lower learning_rate, or raise beta"
    return None


def _length(entries: Entries, limits: Limits) -> str | None:
    ends = _ends(entries, "completions/mean_length", limits.window)
    if ends is None or ends[1] >= limits.length * ends[0]:
        return None
    return f"completions fell to {ends[1]:.0f} tokens from {ends[0]:.0f}. Reward the reasoning (preset strict), or raise beta"


def _clipped(entries: Entries, limits: Limits) -> str | None:
    ends = _ends(entries, "completions/clipped_ratio", limits.window)
    if ends is None or ends[1] <= limits.clipped:
        return None
    return f"{ends[1]:.0%} of the completions end by the limit of tokens. Raise max_completion_length, or train PA-SFT longer"


def _dead(entries: Entries, limits: Limits) -> str | None:
    ends = _ends(entries, "frac_reward_zero_std", limits.window)
    if ends is None or ends[1] <= limits.dead:
        return None
    return f"in {ends[1]:.0%} of the groups all completions earn the same. Raise temperature or num_generations, or take recipe robust"


def _one_class(entries: Entries, limits: Limits) -> str | None:
    last = entries[-limits.window :]
    said, true = _values(last, "said_anomalous"), _values(last, "are_anomalous")
    if not said or not true or not 0.1 <= fmean(true) <= 0.9:
        return None
    share = fmean(said)
    if max(share, 1 - share) <= limits.one_class:
        return None
    return f"{max(share, 1 - share):.1%} of the answers are {'yes' if share > 0.5 else 'no'}, of {fmean(true):.0%} anomalous prompts. Set balanced"


def _loss(entries: Entries, limits: Limits) -> str | None:
    ends = _ends(entries, "loss", limits.window)
    best = _best(entries, "loss", limits, min) if ends else 0.0
    if ends is None or ends[1] <= best + limits.loss_rise:
        return None
    return f"the loss rose to {ends[1]:.3g} from {best:.3g}. Lower learning_rate, or warm up longer"


_POLICY_CHECKS = (_reward, _kl, _entropy, _length, _clipped, _dead, _one_class)
_LOSS_CHECKS = (_loss,)


def stops_when_collapsed(limits: Limits) -> Any:
    """A callback that ends a collapsed training with a ModelError; checkpoints from within the collapse are removed."""
    from transformers import TrainerCallback

    class StopWhenCollapsed(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            """Judge the log as it is; raise ModelError where it shows a collapse."""
            reason = collapse(state.log_history, limits)
            if reason is None:
                return
            steps = [entry["step"] for entry in state.log_history if "loss" in entry][-limits.window :]
            kept = _keep_until(Path(args.output_dir), steps[0], removes=state.is_world_process_zero)
            raise ModelError(f"the training has collapsed at step {state.global_step}: {reason}. {kept}")

    return StopWhenCollapsed()


def _keep_until(checkpoints: Path, step: int, *, removes: bool) -> str:
    found = {int(path.name.removeprefix("checkpoint-")): path for path in checkpoints.glob("checkpoint-*")}
    for bad in [at for at in found if at > step]:
        path = found.pop(bad)
        if removes:
            shutil.rmtree(path)
    return f"The last good checkpoint is {found[max(found)]}." if found else "No checkpoint is from before; save more often (save_steps)."


class Sigterm:
    """Whether SIGTERM has asked the training to stop; a second one ends the process at once, unless it is the same that a launcher hands on."""

    def __init__(self) -> None:
        self.asked = False
        self.since = 0.0
        self.before: Any = None

    def __call__(self, number: int, frame: Any) -> None:
        if not self.asked:
            self.asked, self.since = True, time.monotonic()
        elif time.monotonic() - self.since > SAME_WISH:
            signal.signal(signal.SIGTERM, self.before)
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def sigterm() -> Iterator[Sigterm]:
    """Takes SIGTERM as a wish to stop; only the main thread can."""
    wish = Sigterm()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    wish.before = signal.signal(signal.SIGTERM, wish)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGTERM, wish.before)


def saves_when_asked(wish: Sigterm) -> Any:
    """A callback that saves a checkpoint after the step during which SIGTERM came to any of the processes, and stops there."""
    from transformers import TrainerCallback

    class SaveWhenAsked(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            """Ask all processes whether one was told to stop."""
            wish.asked = _is_any(wish.asked, args.device)
            if wish.asked:
                control.should_save = control.should_training_stop = True

    return SaveWhenAsked()


def _is_any(value: bool, device: Any) -> bool:
    """Whether the value is true on any process: all have to save at the same step."""
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    told = torch.tensor(float(value), device=device)
    torch.distributed.all_reduce(told)
    return bool(told.item())


def ends_when_hanging(seconds: float) -> Any:
    """A callback that dumps the stacks of all threads and ends the process with exit code 1 when nothing has happened for so long."""
    from transformers import TrainerCallback

    def rearm(*_: Any, **__: Any) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)

    def disarm(*_: Any, **__: Any) -> None:
        faulthandler.cancel_dump_traceback_later()

    class EndWhenHanging(TrainerCallback):
        on_train_begin = on_step_begin = on_substep_end = on_step_end = staticmethod(rearm)
        on_prediction_step = on_evaluate = on_log = on_save = staticmethod(rearm)
        on_train_end = staticmethod(disarm)

    return EndWhenHanging()
