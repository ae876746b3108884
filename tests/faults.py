"""Faults that codes of this kind have had, each as a change to a sound implementation, and the tests that find it.

As a pytest plugin it makes the fault that IADR1_FAULT names: `IADR1_FAULT=swapped_images pytest -p tests.faults -n0 tests/test_few_shot.py`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What is wrong, how to make it so, and which tests find that."""

    about: str
    make: Callable[[], None]
    found_by: tuple[str, ...]


def _changed(owner: Any, name: str, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    setattr(owner, name, change(getattr(owner, name)))


def _groups_mixed() -> None:
    from trl.trainer import grpo_trainer

    def change(sampler: Any) -> Any:
        class Mixed(sampler):  # type: ignore[misc]
            def __iter__(self) -> Any:
                order, size = list(super().__iter__()), self.batch_size * self.mini_repeat_count
                for start in range(0, len(order), size):
                    part = order[start : start + size]
                    # a, b, a, b in place of a, a, b, b.
                    yield from (part[at + of] for of in range(self.mini_repeat_count) for at in range(0, size, self.mini_repeat_count))

        return Mixed

    _changed(grpo_trainer, "RepeatSampler", change)


def _logps_shifted() -> None:
    from trl import GRPOTrainer

    def change(compute: Callable[..., Any]) -> Callable[..., Any]:
        def shifted(*given: Any, **options: Any) -> Any:
            logps, *others = compute(*given, **options)
            return logps.roll(1, 1), *others

        return shifted

    _changed(GRPOTrainer, "_get_per_token_logps_and_entropies", change)


def _padding_attended() -> None:
    from trl import GRPOTrainer

    def change(compute: Callable[..., Any]) -> Callable[..., Any]:
        def attending(self: Any, model: Any, ids: Any, mask: Any, *others: Any, **options: Any) -> Any:
            return compute(self, model, ids, mask.new_ones(mask.shape), *others, **options)

        return attending

    _changed(GRPOTrainer, "_get_per_token_logps_and_entropies", change)


def _cut_rows_kept() -> None:
    from iadr1.pa_sft import Collator

    _changed(Collator, "_require_whole", lambda _: lambda *given: None)


def _image_tokens_sampled() -> None:
    from transformers import GenerationConfig

    def change(made: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, **options: made(self, **{**options, "suppress_tokens": None})

    _changed(GenerationConfig, "__init__", change)


def _images_swapped() -> None:
    from iadr1 import pa_sft, sc_grpo

    def change(row: Callable[..., Any]) -> Callable[..., Any]:
        return lambda sample, **options: {**(made := row(sample, **options)), "images": made["images"][::-1]}

    _changed(pa_sft, "prompt_row", change)
    sc_grpo.prompt_row = pa_sft.prompt_row


def _images_uncounted() -> None:
    from iadr1 import sc_grpo

    def strip(trainer: Any) -> Any:
        compute = trainer._get_per_token_logps_and_entropies
        trainer._get_per_token_logps_and_entropies = lambda *given, batch_num_images=None, **options: compute(*given, **options)
        return trainer

    _changed(sc_grpo, "count_images", lambda _: strip)


def _pixels_unlimited() -> None:
    from iadr1 import sc_grpo

    class Unlimited:
        def __init__(self, module: Any) -> None:
            self.module = module

        def __getattr__(self, name: str) -> Any:
            return getattr(self.module, name)

        def load_processor(self, folder: Any, **_: Any) -> Any:
            return self.module.load_processor(folder)

    sc_grpo.backbones = Unlimited(sc_grpo.backbones)  # type: ignore[assignment]


def _resumes_at_the_first_rows() -> None:
    from transformers import TrainingArguments

    # The data starts anew, while the step count goes on.
    _changed(TrainingArguments, "__post_init__", lambda made: lambda self: (setattr(self, "ignore_data_skip", True), made(self))[1])


def _failing_reward_is_zero() -> None:
    from iadr1.rewards import TrlReward

    def change(call: Callable[..., Any]) -> Callable[..., Any]:
        def lenient(self: Any, prompts: Any, *given: Any, **options: Any) -> Any:
            try:
                return call(self, prompts, *given, **options)
            except (KeyError, ValueError):
                return [0.0] * len(prompts)

        return lenient

    _changed(TrlReward, "__call__", change)


_ALIGNED = "tests/test_rollouts.py::test_the_log_probabilities_of_a_padded_batch_are_those_of_each_row_alone"
_FEW_SHOT = "tests/test_few_shot.py::test_sc_grpo_keeps_each_prompts_images_in_order_where_it_shuffles_and_splits"

FAULTS: dict[str, Fault] = {
    "groups_mixed": Fault(
        "completions of different prompts form a group where a device has more than one prompt",
        _groups_mixed,
        ("tests/test_sc_grpo.py::test_each_reward_belongs_to_its_completion_and_groups_stay_together",),
    ),
    "logps_shifted": Fault("each log-probability is that of the token beside it", _logps_shifted, (f"{_ALIGNED}[qwen2_5_vl]",)),
    "padding_attended": Fault("the left padding of shorter prompts is attended to", _padding_attended, (f"{_ALIGNED}[qwen2_5_vl]",)),
    "cut_rows_kept": Fault(
        "a row is cut to a length and loses image tokens whose pixels stay",
        _cut_rows_kept,
        ("tests/test_families.py::test_a_cut_row_is_refused_before_and_in_the_model[qwen2_5_vl]",),
    ),
    "image_tokens_sampled": Fault(
        "a rollout may say an image token, which has no image",
        _image_tokens_sampled,
        ("tests/test_sc_grpo.py::test_no_image_token_is_ever_sampled",),
    ),
    "images_swapped": Fault(
        "the query image comes before the reference",
        _images_swapped,
        ("tests/test_few_shot.py::test_a_training_prompt_shows_the_references_it_has_and_the_query_last", _FEW_SHOT),
    ),
    "images_uncounted": Fault(
        "LLaVA-OneVision is not told how many images each sample of a mixed batch has",
        _images_uncounted,
        (f"{_ALIGNED}[llava_onevision]",),
    ),
    "pixels_unlimited": Fault(
        "max_pixels reaches the evaluation but not the rollout and the learner",
        _pixels_unlimited,
        ("tests/test_rollouts.py::test_the_pixels_are_the_same_in_rollout_learner_and_evaluation_and_within_the_limit",),
    ),
    "resumes_at_the_first_rows": Fault(
        "a run that resumes sees other rows than one that was not killed",
        _resumes_at_the_first_rows,
        (
            "tests/test_sc_grpo.py::test_a_killed_training_resumes_to_the_weights_of_an_undisturbed_one",
            "tests/test_pa_sft.py::test_a_killed_training_resumes_to_the_weights_and_the_curve_of_an_undisturbed_one[5-on_step_end-2]",
        ),
    ),
    "failing_reward_is_zero": Fault(
        "a reward that raises counts as 0",
        _failing_reward_is_zero,
        ("tests/test_sc_grpo.py::test_a_reward_that_fails_stops_the_run_and_names_the_sample",),
    ),
}


def pytest_configure() -> None:
    """Make the fault that the environment names; pytest calls this where the module is given as a plugin."""
    if name := os.environ.get("IADR1_FAULT"):
        FAULTS[name].make()
