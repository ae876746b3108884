"""Engines that answer chats greedily: transformers anywhere, vLLM where it is installed. An engine is a call from chats to answers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from iadr1 import backbones
from iadr1.errors import ModelError
from iadr1.images import open_image

Chat = Sequence[Mapping[str, Any]]


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
    seconds: float | None = None


class Engine(Protocol):
    """Answers each chat; `done` is told how many more are answered whenever some are."""

    def __call__(self, chats: Sequence[Chat], done: Callable[[int], object] = ...) -> list[Generated]: ...


def _no_one(count: int) -> None:
    return None


class TransformersEngine:
    """Greedy answers from transformers' own `generate`, in batches of chats of like length."""

    def __init__(self, model: Path, *, batch_size: int, max_new_tokens: int, max_pixels: int | None = None, images: int = 1) -> None:
        import torch

        self.processor = backbones.load_processor(model, max_pixels=max_pixels)
        self.model = backbones.load_model(model).eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.stops = _stop_tokens(self.model, self.processor)

    def __call__(self, chats: Sequence[Chat], done: Callable[[int], object] = _no_one) -> list[Generated]:
        """The answers, in the order of the chats."""
        prompts = [backbones.prompt_text(self.processor, chat) for chat in chats]
        order = sorted(range(len(chats)), key=lambda at: (len(images_of(chats[at])), len(prompts[at]), at))
        answers: dict[int, Generated] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            answers |= zip(batch, self._answers([chats[at] for at in batch], [prompts[at] for at in batch]), strict=True)
            done(len(batch))
        return [answers[at] for at in range(len(chats))]

    def _answers(self, chats: Sequence[Chat], prompts: Sequence[str]) -> list[Generated]:
        import torch

        images = [[open_image(path) for path in images_of(chat)] for chat in chats]
        # Left padding: generation continues from the last column.
        inputs = self.processor(
            images=images, text=list(prompts), padding=True, padding_side="left", return_tensors="pt", add_special_tokens=False
        )
        with torch.inference_mode():
            output = self.model.generate(**inputs.to(self.model.device), **self._greedy())
        return [self._generated(row) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]

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

    def _generated(self, tokens: list[int]) -> Generated:
        ends = [at for at, token in enumerate(tokens) if token in self.stops]
        kept = tokens[: ends[0] + 1] if ends else tokens
        return Generated(_decoded(self.processor, kept), truncated=not ends, tokens=len(kept))


class VllmEngine:
    """Greedy answers from vLLM, which is handed all chats at once and batches them itself."""

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
        self.engine = _vllm(model, limit_mm_per_prompt={"image": images}, max_num_seqs=batch_size, **pixels)
        self.max_new_tokens = max_new_tokens

    def __call__(self, chats: Sequence[Chat], done: Callable[[int], object] = _no_one) -> list[Generated]:
        """The answers, in the order of the chats."""
        from vllm import SamplingParams

        # An image token among the answer's would have no image.
        banned = {self.processor.tokenizer.convert_tokens_to_ids(self.processor.image_token): -100.0}
        sampling = SamplingParams(temperature=0.0, max_tokens=self.max_new_tokens, logit_bias=banned, skip_special_tokens=True)
        requests = [
            {
                "prompt": backbones.prompt_text(self.processor, chat),
                "multi_modal_data": {"image": [open_image(path) for path in images_of(chat)]},
            }
            for chat in chats
        ]
        # The chat template writes the BOS; vLLM would put a second one before it.
        as_written = {"add_special_tokens": False}
        answered = self.engine.generate(requests, sampling, use_tqdm=False, tokenization_kwargs=as_written)
        outputs = [request.outputs[0] for request in answered]
        done(len(outputs))
        # vLLM's own text leaves out bytes at its end that are no whole letter.
        texts = self.processor.tokenizer.batch_decode([output.token_ids for output in outputs], skip_special_tokens=True)
        return [
            Generated(text.strip(), output.finish_reason == "length", len(output.token_ids))
            for text, output in zip(texts, outputs, strict=True)
        ]


def _vllm(model: Path, **limits: Any) -> Any:
    # In-process: a second process would import everything again, and nothing here needs the separation.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import torch
    from vllm import LLM

    if torch.cuda.is_available():
        return LLM(str(model), seed=0, **limits)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return LLM(str(model), seed=0, dtype="float32", enforce_eager=True, **limits)


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


def _decoded(processor: Any, tokens: Sequence[int]) -> str:
    return str(processor.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def _stop_tokens(model: Any, processor: Any) -> frozenset[int]:
    told = model.generation_config.eos_token_id
    declared = told if isinstance(told, list) else [told]
    return frozenset(token for token in (*declared, processor.tokenizer.eos_token_id) if token is not None)
