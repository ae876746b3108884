"""Images a second of an evaluation with vLLM: our path, from image files to kept answers, against `LLM.generate` alone and batches of four.

Run with `python -m benchmarks.bench_eval [--images 240] [--rounds 5] [--memory 1000 100000]`. The three take turns on one engine, in an order
that changes from round to round, with empty caches; "alone" has its images decoded and its prompts written before the clock starts. The model
has the sizes of `--model` and random weights: those never end an answer, so that each takes as many tokens as one with its reasons does.
`--memory` measures the peak memory of a process that asks about so many images, a token each.
"""

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iadr1 import prompts
from iadr1.engines import Chat, VllmEngine
from iadr1.samples import Sample
from tasks._answers import Answers
from tests.tiny import tiny_samples

SIDE, TOKENS, BATCH, FEW = 64, 48, 120, 4


def main() -> None:
    """Print a line for each way, then the ratios, then the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, default=Path("backbones/small"))
    parser.add_argument("--memory", type=int, nargs="*", default=[1_000, 100_000], metavar="N", help="default: %(default)s")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if told.peak:
            _tell_peak(told.model, told.peak, Path(folder))
            return
        if told.rounds:
            _tell_speed(_untaught(told.model, Path(folder) / "model"), told.images, told.rounds, Path(folder))
    for count in told.memory:
        command = [sys.executable, "-m", "benchmarks.bench_eval", "--model", str(told.model), "--peak", str(count)]
        subprocess.run(command, check=True)


def _untaught(model: Path, into: Path) -> Path:
    """A model of the same sizes with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(model)).save_pretrained(into)
    AutoProcessor.from_pretrained(model).save_pretrained(into)
    return into


def _tell_speed(model: Path, count: int, rounds: int, folder: Path) -> None:
    engine = VllmEngine(model, batch_size=BATCH, max_new_tokens=TOKENS, max_pixels=SIDE * SIDE)
    samples = tiny_samples(folder, count, side=SIDE)
    ready = [engine._request(chat) for chat in _Chats(samples)]
    ways: dict[str, Callable[[int], int]] = {
        "ours": lambda turn: _ours(engine, samples, folder / f"answers-{turn}"),
        "LLM.generate alone": lambda turn: _alone(engine, ready),
        "batches of four": lambda turn: sum(_alone(engine, ready[at : at + FEW]) for at in range(0, count, FEW)),
    }
    for name, way in ways.items():  # once without the clock: shapes are compiled, files are read
        print(f"{name:20} {way(-1) / count:.1f} tokens an answer", flush=True)
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in random.Random(turn).sample(list(ways), len(ways)):
            took[name].append(_timed(engine, ways[name], turn))
    _tell(took, count)


def _timed(engine: VllmEngine, way: Callable[[int], int], turn: int) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    engine.engine.reset_prefix_cache()
    engine.engine.reset_mm_cache()
    clock, processor = time.perf_counter(), time.process_time()
    way(turn)
    return time.perf_counter() - clock, time.process_time() - processor


def _tell(took: dict[str, list[tuple[float, float]]], count: int) -> None:
    for name, turns in took.items():
        clock, processor = ([count / seconds for seconds in column] for column in zip(*turns, strict=True))
        print(f"{name:20} {_spread(clock, 1)} images/s  {_spread(processor, 1)} a processor second", flush=True)
    for name in list(took)[1:]:
        pairs = list(zip(took[name], took["ours"], strict=True))
        clock, processor = ([other[column] / own[column] for other, own in pairs] for column in (0, 1))
        print(f"ours / {name:20} {_spread(clock, 2)} by the clock, {_spread(processor, 2)} by the processor", flush=True)


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


class _Chats(Sequence[Chat]):
    """The chats about samples, each made when it is asked for, as the stage makes them."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, at: Any) -> Any:
        return prompts.messages(self.samples[at])


def _ours(engine: VllmEngine, samples: Sequence[Sample], folder: Path) -> int:
    """Ask and keep the answers; how many tokens they have."""
    answers, tokens = Answers(folder), 0
    for some in engine.stream(_Chats(samples)):
        answers.add((samples[at].id, answer) for at, answer in some.items())
        tokens += sum(answer.tokens for answer in some.values())
    return tokens


def _alone(engine: VllmEngine, requests: list[dict[str, Any]]) -> int:
    from vllm import SamplingParams

    banned = {engine.processor.tokenizer.convert_tokens_to_ids(engine.processor.image_token): -100.0}
    sampling = SamplingParams(temperature=0.0, max_tokens=TOKENS, logit_bias=banned)
    outputs = engine.engine.generate(requests, sampling, use_tqdm=False, tokenization_kwargs={"add_special_tokens": False})
    return sum(len(output.outputs[0].token_ids) for output in outputs)


def _tell_peak(model: Path, count: int, folder: Path) -> None:
    engine = VllmEngine(model, batch_size=BATCH, max_new_tokens=1, max_pixels=SIDE * SIDE)
    samples = _linked(tiny_samples(folder, min(count, 1_000), side=SIDE), count, folder)
    idle, start = _peak(), time.perf_counter()
    _ours(engine, samples, folder / "answers")
    told = f"{count:9,} images: {_peak():7.0f} MB at most, {idle:.0f} MB of it before the first"
    print(f"{told}; {count / (time.perf_counter() - start):.1f} images/s of one token", flush=True)


def _linked(samples: Sequence[Sample], count: int, folder: Path) -> list[Sample]:
    """So many samples, each with an image file of its own name."""
    found = []
    for at in range(count):
        sample = samples[at % len(samples)]
        path = folder / f"link-{at:07}.png"
        os.link(sample.images[0], path)
        found.append(replace(sample, id=f"{sample.dataset}/{at:07}", images=(str(path),)))
    return found


def _peak() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
