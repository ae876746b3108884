"""PA-SFT: teach a backbone to perceive, reason and answer, with `trl.SFTTrainer` and the loss on the completion only."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from iadr1 import backbones, length_grouping, prompts, training
from iadr1.backbones import completion_text, prompt_text
from iadr1.errors import DatasetError, ParamsError
from iadr1.images import open_image, require_readable
from iadr1.plan import Plan, plan
from iadr1.samples import Sample
from iadr1.training import Job, Outcome

COLUMNS = ("epoch", "loss", "mean_token_accuracy", "entropy", "grad_norm", "learning_rate", "eval_loss", "eval_mean_token_accuracy")
SETTINGS = ("learning_rate", "lr_scheduler_type", "num_train_epochs", "bf16", "gradient_checkpointing")
REMEMBERED_BYTES = 2**30
# Keys of the trainer that cannot be met.
TEXT_ONLY = {"packing": True, "train_sampling_strategy": "batch_rebalance"}


def train(job: Job, samples: Sequence[Sample], *, validation: Sequence[Sample], shots: int = 0, answers_only: bool = False) -> Outcome:
    """Tune `job.model` on the samples and save the result; resumes where a killed run has left a checkpoint.

    A prompt shows up to `shots` references before the query; with `answers_only` the completion is the answer without think, location and type.
    What is saved is the last step, or with the key load_best_model_at_end the checkpoint of the lowest validation loss.
    """
    require_trainable([*samples, *validation], shots=shots, answers_only=answers_only)
    processor = backbones.load_processor(job.model, max_pixels=job.max_pixels)
    train_rows = rows(samples, shots=shots, answers_only=answers_only)
    validation_rows = rows(validation, shots=shots, answers_only=answers_only) if validation else None
    if length_grouping.is_wanted(job.keys):
        answers = [prompts.target(sample, answers_only=answers_only) for sample in samples]
        train_rows = train_rows.add_column("length", length_grouping.token_counts(processor, samples, answers, shots=shots))

    def build(job: Job) -> Any:
        return _trainer(_config(job, is_validated=bool(validation)), job, processor, train_rows, validation_rows)

    trainer = training.fit(build, job)
    if validation and not training.is_validated(trainer.state):
        trainer.evaluate()
    return training.outcome(trainer, processor, job)


def planned(job: Job, samples: Sequence[Sample], *, shots: int = 0, answers_only: bool = False) -> Plan:
    """What `train` will do."""
    config = _config(job, is_validated=True)
    processor = backbones.load_processor(job.model, max_pixels=job.max_pixels)
    longest = max((prompts.target(sample, answers_only=answers_only) for sample in samples), key=len)
    said = len(processor.tokenizer(longest)["input_ids"])
    batch = job.processes * config.per_device_train_batch_size * config.gradient_accumulation_steps
    steps = math.ceil(len(samples) / batch)
    return plan("pa_sft", job, config, samples, processor=processor, settings=SETTINGS, completion=said, steps_an_epoch=steps, shots=shots)


def _config(job: Job, *, is_validated: bool) -> Any:
    from trl import SFTConfig

    for key, value in TEXT_ONLY.items():
        if job.keys.get(key) == value:
            raise ParamsError(
                f"params.yaml: pa_sft.{key}: TRL has {value} for texts alone, not for rows with images. train_sampling_strategy: group_by_length "
                "saves padding too."
            )
    # max_length: TRL's default of 1024 would cut image tokens off, while their pixels stay.
    return training.settings(SFTConfig, job, section="pa_sft", max_length=None, **_measured(job.keys, is_validated=is_validated))


def _measured(keys: Mapping[str, Any], *, is_validated: bool) -> dict[str, Any]:
    """When the validation rows are measured: once an epoch, or where one of the checkpoints is chosen by them, with each."""
    if not keys.get("load_best_model_at_end"):
        return {"eval_strategy": "epoch" if is_validated else "no"}
    if not is_validated:
        raise ParamsError(
            "params.yaml: pa_sft.load_best_model_at_end: there are no validation rows to choose by. Raise prepare.validation_rows."
        )
    strategy = keys.get("save_strategy", "steps")
    return {"eval_strategy": strategy, **({"eval_steps": keys["save_steps"]} if strategy == "steps" and "save_steps" in keys else {})}


def require_trainable(samples: Sequence[Sample], *, shots: int = 0, answers_only: bool = False) -> None:
    """Raise DatasetError when there is nothing to learn from: no rows, a row without a chain of thought, an unreadable image."""
    if not samples:
        raise DatasetError("PA-SFT has no rows. Raise prepare.pa_sft_rows or check the training data, then run `dvc repro prepare`.")
    silent = [] if answers_only else [sample.id for sample in samples if not (sample.reasoning or "").strip()]
    if silent:
        raise DatasetError(
            f"{len(silent)} of {len(samples)} rows have no reasoning, first {silent[0]}. PA-SFT learns from chains of thought."
        )
    require_readable(samples, shots=shots)


def rows(samples: Sequence[Sample], *, shots: int = 0, answers_only: bool = False) -> Any:
    """The samples as TRL reads them: prompt, completion, and the images by path."""
    from datasets import Dataset

    said = [_said(prompts.target(sample, answers_only=answers_only)) for sample in samples]
    return Dataset.from_list([{**prompt_row(sample, shots=shots), "completion": text} for sample, text in zip(samples, said, strict=True)])


def prompt_row(sample: Sample, *, shots: int = 0, form: bool = False) -> dict[str, Any]:
    """Prompt and images of a sample, with up to `shots` references; TRL wants placeholders in the one and the images in the other."""
    messages = prompts.messages(sample, shots=min(shots, len(sample.references)), form=form)
    images = [part["image"] for message in messages for part in _parts(message) if part["type"] == "image"]
    return {"prompt": [{**message, "content": [_placeholder(part) for part in _parts(message)]} for message in messages], "images": images}


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _placeholder(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": part["type"], "text": part.get("text")}


def _said(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def _trainer(config: Any, job: Job, processor: Any, train_rows: Any, validation_rows: Any) -> Any:
    from trl import SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    inner = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    record = backbones.backbone_of(job.model)
    trainer = training.trainer_of(
        length_grouping.grouping(SFTTrainer) if length_grouping.is_wanted(job.keys) else SFTTrainer,
        job,
        section="pa_sft",
        args=config,
        data_collator=Collator(inner, remember=REMEMBERED_BYTES if record.packs_images else 0, max_length=config.max_length),
        train_dataset=train_rows,
        eval_dataset=validation_rows,
        processing_class=processor,
    )
    # TRL's own loss is one over all tokens of a step, but only for models that take their number themselves, as Qwen's do not: of those it would
    # be a mean of the means of each part and process, so another one with each number of them.
    trainer.model_accepts_loss_kwargs = True
    trainer.add_callback(_validates_before_saving())
    return trainer


def _validates_before_saving() -> Any:
    """A callback that validates at an epoch's last step instead of after it: a run that was killed in between would resume without that validation."""
    from transformers import TrainerCallback

    class ValidateBeforeSaving(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_evaluate |= args.eval_strategy == "epoch" and state.epoch.is_integer() and state.epoch >= (args.eval_delay or 0)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_evaluate &= not training.is_validated(state)

    return ValidateBeforeSaving()


class Collator:
    """TRL's own collator, run once a sample instead of once a step: later epochs only pad what it has returned.

    `remember` bounds the memory for that in bytes; 0 leaves everything to TRL's collator. The batches are the same. Prompt and completion
    are written here, because the chat templates of some families do not end the assistant's turn. A row of more than `max_length` tokens is
    an error.
    """

    def __init__(self, collator: Any, *, remember: int, max_length: int | None = None) -> None:
        self.collator = collator
        self.max_length = max_length
        self.padding = {"input_ids": collator.processor.tokenizer.pad_token_id, "attention_mask": 0, "labels": -100, "mm_token_type_ids": 0}
        self.room = remember
        self.whole = not remember
        self.known: dict[str, Mapping[str, Any]] = {}

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if self.whole:
            batch = dict(self.collator([self._decoded(example) for example in examples]))
        else:
            batch = self._padded([self._encoded(example) for example in examples])
        self._require_whole(batch, examples)
        return batch

    def _require_whole(self, batch: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> None:
        for tokens, example in zip(batch["attention_mask"].sum(1).tolist(), examples, strict=True):
            if self.max_length is not None and tokens > self.max_length:
                raise DatasetError(
                    f"pa_sft.max_length is {self.max_length}; the row of {example['images'][-1]} has {tokens} tokens. Cut to that, it would lose "
                    "the answer or image tokens whose pixels stay. Raise max_length or set it to null, lower max_pixels, or leave the row out."
                )

    def _decoded(self, example: Mapping[str, Any]) -> dict[str, Any]:
        processor, chat = self.collator.processor, example["prompt"]
        answer = example["completion"][0]["content"][0]["text"]
        written = {"prompt": prompt_text(processor, chat), "completion": completion_text(processor, chat, answer)}
        return {**written, "images": [open_image(path) for path in example["images"]]}

    def _encoded(self, example: Mapping[str, Any]) -> Mapping[str, Any]:
        name = repr(example)
        if name in self.known:
            return self.known[name]
        encoded = self.collator([self._decoded(example)])
        size = sum(tensor.nbytes for tensor in encoded.values())
        if size <= self.room:
            self.known[name] = encoded
            self.room -= size
        return encoded

    def _padded(self, encoded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        batch = {}
        for name in encoded[0]:
            tensors = [row[name] for row in encoded]
            if name in self.padding:
                batch[name] = pad_sequence([tensor[0] for tensor in tensors], batch_first=True, padding_value=self.padding[name])
            else:
                batch[name] = torch.cat(tensors)
        return batch
