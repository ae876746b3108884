"""How SC-GRPO is trained: recipes of trainer settings as data, chosen by name; docs/sc_grpo.md maps each to the paper's equations.

`paper`    Algorithm 1 and Equations 6 and 9 to 11, with the released code's numbers where the paper states none.
`released` what the authors' released code did, its batch and schedule included.
`robust`   for a reward that collapses or learns slowly: the DAPO loss without its length bias, truncated completions left out of the loss,
           groups without a difference in reward sampled again, and as many anomalous prompts in each batch as in the data.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iadr1.errors import ParamsError
from iadr1.samples import Sample


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of `trl.GRPOConfig`, and what TRL has no setting for.

    `global_batch_size` counts completions a step (None: what the trainer's own keys make). `balanced` orders the rows so that each batch has
    the data's share of anomalous ones; `resamples` is how often a group whose completions all earn the same is sampled again.
    """

    trainer: Mapping[str, Any]
    global_batch_size: int | None = None
    balanced: bool = False
    resamples: int = 0


_PAPER: dict[str, Any] = {
    "num_generations": 4,
    "num_iterations": 1,
    "loss_type": "grpo",
    "importance_sampling_level": "token",
    "epsilon": 0.2,
    "beta": 0.04,
    "use_bias_correction_kl": False,
    "scale_rewards": "group",
    "multi_objective_aggregation": "sum_then_normalize",
    "mask_truncated_completions": False,
    "temperature": 0.9,
    "top_p": 0.9,
    "top_k": 50,
    "max_completion_length": 512,
    "vllm_importance_sampling_correction": False,
    "num_train_epochs": 1,
}
_SCHEDULE: dict[str, Any] = {
    "learning_rate": 1.0e-6,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
}
# Sampling from the whole distribution: TRL's log-probabilities know the temperature, but nothing of top-p and top-k.
_WHOLE: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "vllm_importance_sampling_correction": True}
_DAPO: dict[str, Any] = {"loss_type": "dapo", "epsilon_high": 0.28, "use_bias_correction_kl": True, "mask_truncated_completions": True}

RECIPES: dict[str, Recipe] = {
    "paper": Recipe(_PAPER),
    "released": Recipe({**_PAPER, **_SCHEDULE}, global_batch_size=24),
    "robust": Recipe({**_PAPER, **_WHOLE, **_DAPO}, balanced=True, resamples=2),
}


def recipe_named(name: str, **changes: Any) -> Recipe:
    """The recipe of that name, with what is not None in `changes` in place of its own."""
    if name not in RECIPES:
        raise ParamsError(f"sc_grpo.recipe: {name!r} is not a recipe of SC-GRPO; choose one of {', '.join(RECIPES)}.")
    return replace(RECIPES[name], **{key: value for key, value in changes.items() if value is not None})


def balanced_order(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """The samples shuffled so that among any n neighbours the anomalous ones are n times their share, give or take two."""
    draw = random.Random(seed)
    normal, anomalous = ([sample for sample in samples if sample.anomalous is value] for value in (False, True))
    draw.shuffle(normal)
    draw.shuffle(anomalous)
    count, total, order = len(anomalous), len(samples), []
    for at in range(total):
        due = (at + 1) * count // total - at * count // total
        order.append((anomalous if due else normal).pop())
    return order
