"""Rows of about the same length in one batch, which takes less padding."""

from collections.abc import Mapping, Sequence
from typing import Any

from iadr1.images import size_of
from iadr1.plan import prompt_size
from iadr1.samples import Sample


def is_wanted(keys: Mapping[str, Any]) -> bool:
    """Whether the trainer's keys ask for it."""
    return keys.get("train_sampling_strategy") == "group_by_length"


def token_counts(processor: Any, samples: Sequence[Sample], answers: Sequence[str], *, shots: int) -> list[int]:
    """About how many tokens each row has: its answer's, and those of a prompt with images of its sizes, which is counted once for each."""
    prompts: dict[tuple[tuple[int, int], ...], int] = {}
    counts = []
    for sample, answer in zip(samples, answers, strict=True):
        sizes = tuple(map(size_of, (*sample.references[:shots], sample.images[-1])))
        if sizes not in prompts:
            prompts[sizes] = prompt_size(processor, sample, shots, None)[0]
        counts.append(prompts[sizes] + len(processor.tokenizer(answer)["input_ids"]))
    return counts


def grouping(kind: Any) -> Any:
    """The trainer class with an order that is drawn from the seed and the epoch alone.

    transformers draws it from the random numbers of the moment: a run that resumes in a later epoch would have another one.
    """
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class Grouping(kind):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            # Not the data set that is given here: of that TRL has taken the column away.
            lengths, args, state = list(self.train_dataset[self.args.length_column_name]), self.args, self.state

            class Seeded(LengthGroupedSampler):
                def __iter__(self) -> Any:
                    self.generator = torch.Generator().manual_seed(args.seed + int(state.epoch or 0))
                    return super().__iter__()

            step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            return Seeded(step, lengths=lengths)

        def _get_eval_sampler(self, eval_dataset: Any) -> Any:
            # transformers would group these too, by lengths that they do not have.
            return torch.utils.data.SequentialSampler(eval_dataset) if self.args.world_size == 1 else None

    return Grouping
