"""Engines that answer chats greedily: transformers anywhere, vLLM where it is installed. An engine is a call from chats to answers."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from iadr1 import backbones
from iadr1.ahead import ahead
from iadr1.errors import ModelError, ParamsError
from iadr1.images import open_image
from iadr1.p_yes import Watch, answer_position, answer_tokens, log_mass, p_yes

Chat = Sequence[Mapping[str, Any]]

# Batches are made within so many chats, whatever was answered before: with them, the last bits of the logits stay the same.
PART = 256
MANY = 1024  # prompts that are remembered
DECODERS = 4  # threads that decode images ahead of vLLM


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model said, whether it was cut off at the limit, and how many tokens it took.

    `p_yes` is the probability of yes against no where the answer stands (docs/evaluation.md), `finish` the engine's own word for why the answer
    ended ("stop", "length", "content_filter"), `seconds` from asking to the answer; each is None where the engine does not tell.
    """

    text: str
    truncated: bool
    tokens: int
    p_yes: float | None = None
    finish: str | None = None
    seconds: float | None = field(default=None, compare=False)


class Engine(Protocol):
    """Answers chats; `done` is told how many more are answered whenever some are."""

    def __call__(self, chats: Sequence[Chat], done: Callable[[int], object] = ...) -> list[Generated]: ...


class StreamingEngine(Engine, Protocol):
    """An engine that gives its answers as they come.

    `stream` gives answers by their chat's place, some at a time, in any order, of the places that are `wanted`; of an engine whose batches
    change the last bits of what it computes, also of those in one batch with them. `chats` may make each chat when it is asked for it.
    `pattern` is a regular expression that every answer has to match.
    """

    def stream(
        self, chats: Sequence[Chat], wanted: Callable[[int], bool] = ..., *, pattern: str | None = ...
    ) -> Iterator[dict[int, Generated]]: ...


def _everything(place: int) -> bool:
    return True


def _no_one(count: int) -> None:
    return None


def _collected(answers: Iterable[dict[int, Generated]], done: Callable[[int], object]) -> list[Generated]:
    """All answers in the order of the chats."""
    found: dict[int, Generated] = {}
    for some in answers:
        found |= some
        done(len(some))
    return [found[place] for place in sorted(found)]


class Prompts:
    """Chats as the model reads them; those that differ in their images alone are written once."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.known: dict[tuple[Any, ...], str] = {}

    def __call__(self, chat: Chat) -> str:
        parts = [(message["role"], message["content"]) for message in chat]
        key = tuple(
            (role, said if isinstance(said, str) else tuple((part["type"], part.get("text")) for part in said)) for role, said in parts
        )
        if key not in self.known:
            if len(self.known) >= MANY:
                self.known.clear()
            self.known[key] = backbones.prompt_text(self.processor, chat)
        return self.known[key]


class TransformersEngine:
    """Greedy answers from transformers' own `generate`, in batches of chats of like length."""

    def __init__(self, model: Path, *, batch_size: int, max_new_tokens: int, max_pixels: int | None = None, images: int = 1) -> None:
        import torch

        self.processor = backbones.load_processor(model, max_pixels=max_pixels)
        self.model = backbones.load_model(model).eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.stops = _stop_tokens(self.model, self.processor)
        self.prompt, self.answer_tokens = Prompts(self.processor), answer_tokens(self.processor.tokenizer)

    def __call__(self, chats: Sequence[Chat], done: Callable[[int], object] = _no_one) -> list[Generated]:
        """The answers, in the order of the chats."""
        return _collected(self.stream(chats, part=max(1, len(chats))), done)

    def stream(
        self, chats: Sequence[Chat], wanted: Callable[[int], bool] = _everything, *, pattern: str | None = None, part: int = PART
    ) -> Iterator[dict[int, Generated]]:
        """The answers of a batch at a time; batches are made within `part` chats, so that they are the same whatever is wanted."""
        batches = (batch for batch in self._batches(chats, part) if any(map(wanted, batch)))
        # The next batch's images are decoded and resized while this one is answered.
        for batch, inputs in ahead(lambda batch: self._inputs([chats[at] for at in batch]), batches, workers=1, most=1):
            start = time.perf_counter()
            answers = self._answers(inputs, pattern)
            seconds = time.perf_counter() - start
            yield {at: replace(answer, seconds=seconds) for at, answer in zip(batch, answers, strict=True)}

    def _batches(self, chats: Sequence[Chat], part: int) -> Iterator[list[int]]:
        for first in range(0, len(chats), part):
            some = {at: chats[at] for at in range(first, min(first + part, len(chats)))}
            lengths = {at: (len(images_of(chat)), len(self.prompt(chat)), at) for at, chat in some.items()}
            order = sorted(some, key=lengths.__getitem__)
            yield from (order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size))

    def _inputs(self, chats: Sequence[Chat]) -> Any:
        images = [[open_image(path) for path in images_of(chat)] for chat in chats]
        prompts = [self.prompt(chat) for chat in chats]
        # Left padding: generation continues from the last column.
        return self.processor(images=images, text=prompts, padding=True, padding_side="left", return_tensors="pt", add_special_tokens=False)

    def _answers(self, inputs: Any, pattern: str | None) -> list[Generated]:
        import torch

        watch = Watch(self.answer_tokens)
        # Where a form decides, P(yes) is not the model's own.
        processor = watch if pattern is None else self._constraint(pattern)
        with torch.inference_mode():
            output = self.model.generate(**inputs.to(self.model.device), **self._greedy(), logits_processor=[processor])
        answers = output[:, inputs["input_ids"].shape[1] :].tolist()
        masses: list[Any] = list(watch.rows()) or [None] * len(answers)
        return [self._generated(*one) for one in zip(answers, masses, strict=True)]

    def _greedy(self) -> dict[str, Any]:
        # A sampled image token would have no image; SC-GRPO's rollouts suppress it as well.
        image_token = getattr(self.model.config, "image_token_id", None)
        return {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": False,
            "temperature": None, "top_p": None, "top_k": None,
            "eos_token_id": sorted(self.stops),
            "pad_token_id": self.processor.tokenizer.pad_token_id,
            "suppress_tokens": None if image_token is None else [image_token],
        }  # fmt: skip

    def _constraint(self, pattern: str) -> Any:
        """A logits processor for one batch that lets through what matches the pattern alone, made by the library that vLLM uses for it."""
        try:
            import xgrammar
            from xgrammar.contrib.hf import LogitsProcessor
        except ImportError as error:
            raise ParamsError("constrained decoding needs xgrammar, which comes with vLLM; it is not installed here.") from error
        vocabulary = self.model.get_output_embeddings().out_features
        known = xgrammar.TokenizerInfo.from_huggingface(self.processor.tokenizer, vocab_size=vocabulary, stop_token_ids=sorted(self.stops))
        return LogitsProcessor(xgrammar.GrammarCompiler(known).compile_regex(pattern))

    def _generated(self, tokens: list[int], masses: Sequence[Sequence[float]] | None) -> Generated:
        ends = [at for at, token in enumerate(tokens) if token in self.stops]
        kept = tokens[: ends[0] + 1] if ends else tokens
        at = answer_position(lambda some: _raw(self.processor, some), kept) if masses else None
        sure = p_yes(*masses[at]) if masses and at is not None else None
        return Generated(_raw(self.processor, kept).strip(), not ends, len(kept), sure, "stop" if ends else "length")


class VllmEngine:
    """Greedy answers from vLLM, which is kept full: it always has more chats than it answers at once, and never all of them."""

    def __init__(self, model: Path, *, batch_size: int, max_new_tokens: int, max_pixels: int | None = None, images: int = 1) -> None:
        self.processor = backbones.load_processor(model, max_pixels=max_pixels)
        most = backbones.backbone_of(model).vllm_images
        if most is not None and images > most:
            raise ModelError(
                f"{model}: vLLM shows this family {images} images otherwise than transformers does, so the answers would differ; "
                f"{most} is the most. Set evaluate.engine to transformers, or use fewer shots."
            )
        # vLLM makes its own processor: without this it would see the images in another size than the model was trained on.
        pixels = {} if max_pixels is None else {"mm_processor_kwargs": {"size": dict(self.processor.image_processor.size)}}
        # A query image is seen once; what is worth remembering are references.
        remembered = {"mm_processor_cache_gb": 1.0 if images > 1 else 0.0}
        self.engine = _vllm(model, limit_mm_per_prompt={"image": images}, max_num_seqs=batch_size, **pixels, **remembered)
        self.max_new_tokens, self.waiting = max_new_tokens, 2 * batch_size
        self.prompt, self.answer_tokens = Prompts(self.processor), answer_tokens(self.processor.tokenizer)

    def __call__(self, chats: Sequence[Chat], done: Callable[[int], object] = _no_one) -> list[Generated]:
        """The answers, in the order of the chats."""
        return _collected(self.stream(chats), done)

    def stream(
        self, chats: Sequence[Chat], wanted: Callable[[int], bool] = _everything, *, pattern: str | None = None
    ) -> Iterator[dict[int, Generated]]:
        """The answers that each step of the engine finishes."""
        sampling, places = self._sampling(pattern), filter(wanted, range(len(chats)))
        requests = ahead(lambda at: self._request(chats[at]), places, workers=DECODERS, most=self.waiting)
        asked: dict[int, tuple[int, float]] = {}
        while True:
            some = list(islice(requests, self.waiting - len(asked)))
            if some:
                numbers = self._ask([request for _, request in some], sampling)
                asked |= {number: (at, time.perf_counter()) for number, (at, _) in zip(numbers, some, strict=True)}
            if not asked:
                return
            finished = [output for output in self.engine.llm_engine.step() if output.finished]
            if finished:
                yield dict(self._generated(output.outputs[0], *asked.pop(int(output.request_id))) for output in finished)

    def _ask(self, requests: list[dict[str, Any]], sampling: Any) -> list[int]:
        """Hand requests over; their numbers."""
        # The chat template writes the BOS; vLLM would put a second one before it.
        names = self.engine.enqueue(requests, sampling, use_tqdm=False, tokenization_kwargs={"add_special_tokens": False})
        return [int(name.partition("-")[0]) for name in names]

    def _sampling(self, pattern: str | None) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        # An image token among the answer's would have no image.
        banned = {self.processor.tokenizer.convert_tokens_to_ids(self.processor.image_token): -100.0}
        return SamplingParams(
            temperature=0.0, max_tokens=self.max_new_tokens, logit_bias=banned, detokenize=False, flat_logprobs=True,
            # Where a form decides, P(yes) is not the model's own.
            logprob_token_ids=[token for tokens in self.answer_tokens for token in tokens] if pattern is None else None,
            structured_outputs=None if pattern is None else StructuredOutputsParams(regex=pattern),
        )  # fmt: skip

    def _request(self, chat: Chat) -> dict[str, Any]:
        paths = images_of(chat)
        return {
            "prompt": self.prompt(chat),
            "multi_modal_data": {"image": [open_image(path) for path in paths]},
            # By name, a reference that many chats share is known without looking at its pixels.
            "multi_modal_uuids": {"image": paths},
        }

    def _generated(self, output: Any, at: int, asked: float) -> tuple[int, Generated]:
        tokens = list(output.token_ids)
        # Not vLLM's own text: that leaves out bytes at its end that are no whole letter.
        text = _raw(self.processor, tokens).strip()
        seconds = time.perf_counter() - asked
        return at, Generated(
            text, output.finish_reason == "length", len(tokens), self._p_yes(output.logprobs, tokens), output.finish_reason, seconds
        )

    def _p_yes(self, flat: Any, tokens: Sequence[int]) -> float | None:
        at = answer_position(lambda some: _raw(self.processor, some), tokens) if flat is not None else None
        if at is None:
            return None
        # The token that was chosen comes first.
        first = flat.start_indices[at] + 1
        middle = first + len(self.answer_tokens.yes)
        return p_yes(log_mass(flat.logprobs[first:middle]), log_mass(flat.logprobs[middle : flat.end_indices[at]]))


def _vllm(model: Path, **limits: Any) -> Any:
    # In-process: a second process would import everything again, and nothing here needs the separation.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import torch
    from vllm import LLM

    if torch.cuda.is_available():
        return LLM(str(model), seed=0, **limits)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    engine = LLM(str(model), seed=0, dtype="float32", enforce_eager=True, **limits)
    # Its preprocessing wants one thread for each image, its worker allows no change and says so twice an image.
    logging.getLogger("vllm.v1.worker.cpu_worker").setLevel(logging.ERROR)
    return engine


def _server_engine(model: Path, **settings: Any) -> Engine:
    from iadr1.remote.server import ServerEngine

    return ServerEngine(model, **settings)


ENGINES: dict[str, Callable[..., Engine]] = {"transformers": TransformersEngine, "vllm": VllmEngine, "server": _server_engine}


def images_of(chat: Chat) -> list[str]:
    """The paths of a chat's images, in order."""
    return [
        part["image"]
        for message in chat
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part["type"] == "image"
    ]


def _raw(processor: Any, tokens: Sequence[int]) -> str:
    return str(processor.tokenizer.decode(tokens, skip_special_tokens=True))


def _stop_tokens(model: Any, processor: Any) -> frozenset[int]:
    told = model.generation_config.eos_token_id
    declared = told if isinstance(told, list) else [told]
    return frozenset(token for token in (*declared, processor.tokenizer.eos_token_id) if token is not None)
