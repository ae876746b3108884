"""Rollouts of SC-GRPO by vLLM, in the training's process or a server: the learner's weights, prompt, pixels and stop tokens, checked at every rollout."""

import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from iadr1 import backbones
from iadr1.errors import ModelError, ParamsError
from iadr1.guards import DIFFERENCE
from iadr1.training import Job


def require_possible(job: Job, config: Any, *, images: int) -> None:
    """Raise ParamsError or ModelError where vLLM cannot roll out what is to be learned; `images` is the most a prompt shows."""
    import torch

    if not config.use_vllm:
        return
    if importlib.util.find_spec("vllm") is None:
        raise ParamsError("sc_grpo.use_vllm: vLLM is not installed. Install the requirements with it, or set use_vllm to false.")
    most = backbones.backbone_of(job.model).vllm_images
    if most is not None and images > most:
        raise ModelError(
            f"{job.model}: vLLM shows this family {images} images otherwise than transformers does, so rollout and learner would differ; "
            f"{most} is the most. Set sc_grpo.use_vllm to false, or use fewer shots."
        )
    if torch.cuda.is_available():
        return
    if config.vllm_mode == "server":
        raise ParamsError(
            "sc_grpo.vllm_mode: TRL sends the weights to a server by NCCL, which needs a GPU, and there is none. Set vllm_mode to colocate."
        )
    if config.vllm_enable_sleep_mode:
        raise ParamsError("sc_grpo.vllm_enable_sleep_mode: vLLM cannot sleep on a CPU. Remove it.")
    if job.processes > 1:
        raise ParamsError(
            f"sc_grpo.use_vllm: vLLM on the CPU runs beside one process, and there are {job.processes}. Start one, or set use_vllm to false."
        )


@contextmanager
def like_the_learner(config: Any, processor: Any, *, images: int) -> Iterator[None]:
    """While a trainer is made, TRL's engine for rollouts is one of the learner's precision and pixels; TRL has no setting for either."""
    if not (config.use_vllm and config.vllm_mode == "colocate"):
        yield
        return
    from trl.generation import vllm_generation

    # TRL reaches into the engine for its model.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    before, vllm_generation.LLM = vllm_generation.LLM, _engine(_options(config, processor, images))
    try:
        yield
    finally:
        vllm_generation.LLM = before


def _options(config: Any, processor: Any, images: int) -> dict[str, Any]:
    import torch

    pixels = getattr(processor.image_processor, "size", None)
    return {
        "dtype": "bfloat16" if config.bf16 else "float16" if config.fp16 else "float32",
        "enforce_eager": not torch.cuda.is_available(),
        "limit_mm_per_prompt": {"image": images},
        "mm_processor_kwargs": {"size": dict(pixels)} if pixels is not None else None,
    }


def _engine(ours: Mapping[str, Any]) -> Any:
    from vllm import LLM

    class RolloutEngine(LLM):
        """vLLM that writes the prompts itself: TRL hands over tokens with the places of images, in which vLLM would make those places again."""

        # What the trainer tells: the text of a prompt by its tokens, and where the random numbers of each rollout come from.
        texts: Mapping[tuple[int, ...], str]
        seed: Callable[[], Sequence[int]]

        def __init__(self, **trl: Any) -> None:
            super().__init__(**{**trl, **ours})

        def generate(self, prompts: Any, sampling_params: Any, **options: Any) -> Any:
            told = [tuple(row["prompt_token_ids"]) for row in prompts]
            asked = [
                {"prompt": self.texts[ids], "multi_modal_data": row["multi_modal_data"]} for ids, row in zip(told, prompts, strict=True)
            ]
            as_written = {"add_special_tokens": False}
            answered = super().generate(asked, _seeded(sampling_params, self.seed(), len(told)), tokenization_kwargs=as_written, **options)
            for ids, answer in zip(told, answered, strict=True):
                require_same_prompt(ids, answer.prompt_token_ids)
            return answered

    return RolloutEngine


def _seeded(sampling: Any, seed: Sequence[int], rows: int) -> list[Any]:
    """The sampling of each row with random numbers of its own, so that a run that resumes says what an undisturbed one does."""
    import numpy as np

    seeds = np.random.SeedSequence(seed).generate_state(rows)
    found = [sampling.clone() for _ in range(rows)]
    for one, number in zip(found, seeds.tolist(), strict=True):
        one.seed, one.detokenize = number, False
    return found


def require_same_prompt(learner: Sequence[int], rollout: Sequence[int]) -> None:
    """Raise ModelError where vLLM makes other tokens of a prompt, or another number of image tokens, than the learner's processor does."""
    if list(learner) == list(rollout):
        return
    first = next((at for at, pair in enumerate(zip(learner, rollout, strict=False)) if pair[0] != pair[1]), min(len(learner), len(rollout)))
    raise ModelError(
        f"vLLM rolls out from another prompt than the learner sees: {len(rollout)} tokens and {len(learner)}, first difference at {first}. "
        "The image sizes (max_pixels), the chat template or the processor differ; give both the same model folder."
    )


def adapt(trainer: Any) -> Any:
    """The GRPO trainer, whose vLLM (if it has one) rolls out as its learner would, and whose difference from the learner is logged."""
    if not trainer.use_vllm:
        return trainer
    generation, processor = trainer.vllm_generation, trainer.processing_class
    banned = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    # A sampled image token would have no image; transformers' rollouts suppress it as well.
    ours = {"logit_bias": {banned: -100.0}, "stop_token_ids": sorted(trainer.eos_token_ids)}
    generation.generation_kwargs = {**ours, **generation.generation_kwargs}
    if generation.mode == "colocate":
        trainer._tokenize_prompts, generation.llm.seed = _telling(trainer, generation.llm), seeds(trainer)
        generation.sync_weights = _loading(generation)
    else:
        generation._place_features = _checked(generation._place_features)
        generation.sync_weights = _resetting(generation)
    _log_difference(trainer)
    return trainer


def _telling(trainer: Any, engine: Any) -> Callable[..., Any]:
    """TRL's tokenization of prompts, which also tells the engine their texts."""
    from accelerate.utils import gather_object

    tokenize = trainer._tokenize_prompts

    def telling(prompts: Sequence[Any]) -> Any:
        ids, images, fields = tokenize(prompts)
        texts = [backbones.prompt_text(trainer.processing_class, prompt) for prompt in prompts]
        # With tensor parallelism an engine answers the prompts of its neighbours as well.
        engine.texts = dict(gather_object([(tuple(row), text) for row, text in zip(ids, texts, strict=True)]))
        return ids, images, fields

    return telling


def seeds(trainer: Any) -> Callable[[], tuple[int, ...]]:
    """A seed for each rollout: by the step and how many there were in it, so that a run that resumes draws what an undisturbed one does."""
    counted: dict[tuple[int, bool], int] = {}

    def seed() -> tuple[int, ...]:
        at = (trainer.state.global_step, trainer.model.training)
        counted[at] = counted.get(at, 0) + 1
        replica = trainer.accelerator.process_index // trainer.vllm_generation.tensor_parallel_size
        return trainer.args.seed, *map(int, at), counted[at], replica

    return seed


def _loading(generation: Any) -> Callable[[], None]:
    """What puts the learner's weights into the colocated engine, by their published names, and forgets what was computed with the old ones."""
    import torch

    published = functools.cache(lambda name: _published(generation.model, name))

    def load() -> None:
        if generation.enable_sleep_mode:
            generation.llm.wake_up(tags=["weights"])
            generation._llm_weights_sleeping = False
        worker = generation.llm.llm_engine.model_executor.driver_worker
        named = ((published(name), weights) for name, weights in generation._iter_named_params())
        if torch.cuda.is_available():
            for one in named:
                worker.model_runner.model.load_weights([one])
        else:
            # The CPU's engine packs its weights: they are loaded as at its start, layer by layer.
            worker.reload_weights(weights_iterator=((name, weights.clone()) for name, weights in named))
            _pack_heads(worker.model_runner.model)
        # TRL forgets the keys and values, but not what the vision tower made of an image.
        generation.llm.llm_engine.reset_encoder_cache()
        generation.llm.reset_prefix_cache()

    return load


def _pack_heads(model: Any) -> None:
    """Pack the output head anew: one that is tied to the embedding is not loaded, and its packed copy would stay as it was at the start."""
    for module in model.modules():
        if hasattr(module, "cpu_linear") and module.weight.numel():
            module.quant_method.process_weights_after_loading(module)


def _published(model: Any, name: str) -> str:
    """The name that a parameter has in a published checkpoint, which is the one that vLLM knows."""
    import torch
    from transformers.core_model_loading import revert_weight_conversion

    (found,) = revert_weight_conversion(model, {name: torch.empty(0)})
    return str(found)


def _checked(place: Callable[..., Any]) -> Callable[..., Any]:
    """TRL's pairing of a prompt's image tokens with a server's image features, which does not compare how many each image has."""

    def checked(features: Any, prompt_ids: Sequence[int]) -> Any:
        placed = place(features, prompt_ids)
        told, made = ([spot["length"] for spot in one["mm_placeholders"]["image"]] for one in (placed, features)) if features else ([], [])
        if told != made:
            raise ModelError(
                f"the vLLM server makes {made} tokens of a prompt's images, the learner {told}. Start it with the learner's image size: "
                "`vllm serve … --mm-processor-kwargs '{\"size\": …}'` with the size in the model's preprocessor_config.json."
            )
        return placed

    return checked


def _resetting(generation: Any) -> Callable[[], None]:
    sync = generation.sync_weights

    def synchronized() -> None:
        sync()
        if generation.accelerator.is_main_process:
            generation.vllm_client._post(f"{generation.vllm_client.base_url}/reset_encoder_cache")

    return synchronized


def _log_difference(trainer: Any) -> None:
    """Log the mean and the largest |Δ log p| between rollout and learner, in nats a token, which TRL does only with its correction."""
    if trainer.vllm_importance_sampling_correction:
        return
    compute_loss, compute = trainer._compute_loss, trainer._get_per_token_logps_and_entropies
    seen: dict[str, Any] = {}

    def remembering(*given: Any, **options: Any) -> Any:
        found = compute(*given, **options)
        seen["logps"] = found[0].detach()
        return found

    def comparing(model: Any, inputs: Mapping[str, Any]) -> Any:
        loss = compute_loss(model, inputs)
        mode = "train" if trainer.model.training else "eval"
        # Where a rollout serves several updates, TRL has computed what the learner thought at its time.
        learner = inputs.get("old_per_token_logps", seen["logps"])
        for name, value in difference(learner, inputs["sampling_per_token_logps"], inputs["completion_mask"]).items():
            gathered = trainer.accelerator.gather(value)
            trainer._metrics[mode][f"{DIFFERENCE}/{name}"].append(getattr(gathered, name)().item())
        return loss

    trainer._get_per_token_logps_and_entropies, trainer._compute_loss = remembering, comparing


def difference(learner: Any, rollout: Any, mask: Any) -> dict[str, Any]:
    """Mean and largest |Δ log p| of the completions' tokens, 0 where there are none that vLLM has scored."""
    delta = (learner - rollout).abs()[mask.bool()]
    delta = delta[~delta.isnan()]
    return {"mean": delta.mean() if len(delta) else delta.sum(), "max": delta.max() if len(delta) else delta.sum()}
