"""Tells a model in SC-GRPO how many images each sample has, where it must know: TRL 1.16 cannot."""

from itertools import islice
from typing import Any

from iadr1.backbones import BACKBONES


def count_images(trainer: Any) -> Any:
    """The GRPO trainer, which now hands LLaVA-OneVision the number of images of each sample.

    That model's processor returns `batch_num_images`, which TRL refuses as an argument; without it two images of one sample would be
    taken for two samples' images, and their features would not fit their tokens.
    """
    if not BACKBONES[trainer.model.config.model_type].counts_images:
        return trainer
    compute = trainer._get_per_token_logps_and_entropies

    def counting(model: Any, input_ids: Any, *others: Any, batch_num_images: Any = None, **options: Any) -> Any:
        """TRL's log-probabilities, each forward pass told the images of its rows."""
        # TRL computes some rows at a time, in order; every forward pass takes the counts of its rows.
        counts = iter(options["num_images"])
        hook = trainer.accelerator.unwrap_model(model).register_forward_pre_hook(
            lambda _, args, given: _counted(args, given, counts), with_kwargs=True
        )
        try:
            return compute(model, input_ids, *others, **options)
        finally:
            hook.remove()

    trainer._get_per_token_logps_and_entropies = counting
    return trainer


def _counted(args: Any, given: dict[str, Any], counts: Any) -> tuple[Any, dict[str, Any]]:
    import torch

    rows = given["input_ids"].shape[0]
    return args, {**given, "batch_num_images": torch.tensor(list(islice(counts, rows)), device=given["input_ids"].device)}
