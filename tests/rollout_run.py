"""SC-GRPO with vLLM's rollouts on a tiny member of a family, and with the faults that must not go unseen; prints what happened as JSON.

Run by tests/test_rollouts.py in a process of its own, because vLLM leaves its settings in the process: `python -m tests.rollout_run FAMILY`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from iadr1 import backbones, rollouts, sc_grpo
from iadr1.errors import ModelError
from iadr1.guards import DIFFERENCE
from iadr1.recipes import RECIPES
from iadr1.training import Job
from tests.families import member, temporary_folder
from tests.test_families import REWARD, samples

KEYS = {
    "use_vllm": True, "max_steps": 4, "per_device_train_batch_size": 4, "num_generations": 2, "learning_rate": 2e-3, "logging_steps": 1,
    "save_strategy": "no", "max_completion_length": 12, "disable_tqdm": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0,
}  # fmt: skip
PIXELS = 48 * 48
STALE_FROM = 3


def main(family: str) -> dict[str, Any]:
    """Four steps, before the last of which the weights are no longer sent; then each fault of the engine's input."""
    record, folder = backbones.BACKBONES[family], temporary_folder()
    (folder / "own.py").write_text(REWARD, encoding="utf-8")
    made: list[Any] = []
    adapt = rollouts.adapt
    rollouts.adapt = lambda trainer: made.append(adapt(trainer)) or made[-1]  # type: ignore[func-returns-value]
    job = Job(
        KEYS, member(family), PIXELS if record.limits_pixels else None, (), 0, folder / "checkpoints", folder / "model",
        callbacks=[stops_sending(made)],
    )  # fmt: skip
    shots = 0 if record.vllm_images == 1 else 1
    outcome = sc_grpo.train(
        job, samples(), validation=[], preset="paper", rewards={f"{folder / 'own.py'}:spread": 1.0}, grid=3, recipe=RECIPES["paper"], shots=shots
    )  # fmt: skip
    (trainer,) = made
    image_token, ends = trainer.processing_class.image_token_id, set(trainer.eos_token_ids)
    said = [row for batch in trainer.said for row in batch]
    return {
        "difference": [entry[f"{DIFFERENCE}/mean"] for entry in outcome.history if "loss" in entry],
        "without_image_token": trainer.exact,
        "image_tokens": sum(row.count(image_token) for row in said),
        "unended": [len(row) for row in said if row[-1] not in ends and len(row) != KEYS["max_completion_length"]],
        "faults": faults(trainer, shots, limits_pixels=record.limits_pixels),
    }


def stops_sending(made: list[Any]) -> Any:
    from transformers import TrainerCallback

    class StopSending(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            (trainer,) = made
            trainer.said, trainer.exact = [], []
            turn, score = trainer._generate_single_turn, trainer._generate_and_score_completions
            trainer._generate_single_turn = lambda *a, **k: (trainer.said.append((done := turn(*a, **k))[0]), done)[1]
            trainer._generate_and_score_completions = lambda rows: (trainer.exact.append(largest(trainer, done := score(rows))), done)[1]

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == STALE_FROM:
                made[0].vllm_generation.sync_weights = lambda: None

    return StopSending()


def largest(trainer: Any, batch: dict[str, Any]) -> float:
    """The largest |Δ log p| of a rollout where the learner, too, is forbidden the image token, by a plain forward pass."""
    import torch

    tokens, said = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1), batch["completion_ids"]
    shown = {
        name: batch[name]
        for name in ("pixel_values", "image_grid_thw", "pixel_attention_mask", "image_sizes", "mm_token_type_ids")
        if name in batch
    }
    if backbones.BACKBONES[trainer.model.config.model_type].counts_images:
        shown["batch_num_images"] = torch.tensor(batch["num_images"])
    with torch.no_grad():
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        logits = trainer.model.forward(input_ids=tokens, attention_mask=mask, **shown).logits[:, -said.shape[1] - 1 : -1]
    logits[..., trainer.processing_class.image_token_id] -= 100
    learner = logits.log_softmax(-1).gather(-1, said[..., None])[..., 0]
    return float((learner - batch["sampling_per_token_logps"]).abs()[batch["completion_mask"].bool()].max())


def faults(trainer: Any, shots: int, *, limits_pixels: bool) -> dict[str, str]:
    """What is said when TRL's tokens go to vLLM as they are, and when vLLM scales images otherwise."""
    from trl.data_utils import prepare_multimodal_messages
    from vllm import LLM

    row = sc_grpo.rows(samples()[:1], shots=shots)[0]
    ids, images, _ = trainer._tokenize_prompts([prepare_multimodal_messages(row["prompt"], images=row["images"])])
    engine = trainer.vllm_generation.llm
    from vllm import SamplingParams

    sampling, found = SamplingParams(max_tokens=1), {}
    (expanded,) = LLM.generate(engine, [{"prompt_token_ids": ids[0], "multi_modal_data": {"image": images[0]}}], sampling, use_tqdm=False)
    found["expanded_twice"] = raised(lambda: rollouts.require_same_prompt(ids[0], expanded.prompt_token_ids))
    if limits_pixels:
        told = [{"prompt_token_ids": ids[0], "multi_modal_data": {"image": images[0]}}]
        other = {"size": {"shortest_edge": 24 * 24, "longest_edge": 24 * 24}}
        found["other_pixels"] = raised(lambda: engine.generate(told, sampling, use_tqdm=False, mm_processor_kwargs=other))
    return found


def raised(act: Any) -> str:
    try:
        act()
    except ModelError as error:
        return str(error)
    return "nothing"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    print("FOUND" + json.dumps(main(sys.argv[1])))
