"""Rollouts: with transformers and with vLLM they see and say what the learner and the evaluation do, and a difference is found before it is learned."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iadr1 import backbones, prompts, rollouts, sc_grpo, training
from iadr1.engines import TransformersEngine
from iadr1.errors import ModelError, ParamsError
from iadr1.guards import DIFFERENCE, Limits, collapse
from iadr1.recipes import RECIPES
from iadr1.training import Job
from tests.families import FAMILIES, member, names_on_disk
from tests.test_families import samples
from tests.tiny import tiny_backbone

ROOT = Path(__file__).parent.parent
PIXELS = 36 * 36
KEYS = {"max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 6, "disable_tqdm": True}


def job(folder: Path, **keys: Any) -> Job:
    return Job({**KEYS, **keys}, tiny_backbone(), PIXELS, (), 0, folder / "checkpoints", folder / "model")


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What went into `generate` in a rollout, into the learner and into `generate` in the evaluation, of the same prompts at a limit of pixels."""
    import torch
    from transformers import GenerationMixin
    from trl import GRPOTrainer

    folder, seen = tmp_path_factory.mktemp("step"), {}
    generate, learn = GenerationMixin.generate, GRPOTrainer._compute_loss

    def generating(self: Any, *given: Any, **options: Any) -> Any:
        seen.setdefault("generated", []).append(options)
        return generate(self, *given, **options)

    def learning(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        seen.update(learned=dict(inputs), trainer=self)
        return learn(self, model, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GenerationMixin, "generate", generating)
        patch.setattr(GRPOTrainer, "_compute_loss", learning)
        # One prompt, so that the learner's shuffling changes nothing.
        (sample,) = shown = [replace(samples()[3], references=samples()[1].images)]
        told = {"preset": "paper", "rewards": {"accuracy": 1.0}, "grid": 3, "shots": 1}
        sc_grpo.train(job(folder, per_device_train_batch_size=4), shown, validation=[], **told)
        engine = TransformersEngine(tiny_backbone(), batch_size=1, max_new_tokens=4, max_pixels=PIXELS, images=2)
        engine([prompts.messages(sample, shots=1)])
    assert torch.is_tensor(seen["learned"]["pixel_values"]) and len(seen["generated"]) == 2
    return seen


def test_the_pixels_are_the_same_in_rollout_learner_and_evaluation_and_within_the_limit(step: dict[str, Any]) -> None:
    rollout, evaluation = step["generated"]
    one = evaluation["pixel_values"]
    assert evaluation["image_grid_thw"].prod(-1).max() <= PIXELS / 12**2 < 80 * 44 / 12**2
    for found in (rollout["pixel_values"], step["learned"]["pixel_values"]):
        assert found.equal(one.repeat(4, 1))


def test_the_prompt_is_the_same_in_rollout_learner_and_evaluation(step: dict[str, Any]) -> None:
    rollout, evaluation = step["generated"]
    (one,) = evaluation["input_ids"].tolist()
    assert rollout["input_ids"].tolist() == step["learned"]["prompt_ids"].tolist() == [one] * 4


def test_the_stops_and_what_is_never_said_are_the_same_in_rollout_and_evaluation(step: dict[str, Any]) -> None:
    rollout, evaluation = step["generated"]
    told = rollout["generation_config"]
    assert sorted(told.eos_token_id) == evaluation["eos_token_id"] and told.suppress_tokens == evaluation["suppress_tokens"]
    assert told.pad_token_id == evaluation["pad_token_id"]


def test_the_rollout_samples_as_the_recipe_says_and_the_evaluation_takes_the_best(step: dict[str, Any]) -> None:
    rollout, evaluation = step["generated"]
    told, recipe = rollout["generation_config"], RECIPES["paper"].trainer
    assert (told.do_sample, evaluation["do_sample"]) == (True, False)
    assert {name: getattr(told, name) for name in ("temperature", "top_p", "top_k")} == {
        name: recipe[name] for name in ("temperature", "top_p", "top_k")
    }
    assert step["trainer"].temperature == told.temperature and told.repetition_penalty == 1.0


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_the_log_probabilities_of_a_padded_batch_are_those_of_each_row_alone(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one prompt with one image and a longer one with two, by a plain forward pass without padding."""
    import torch
    from trl import GRPOTrainer

    seen: list[Any] = []
    compute, score = GRPOTrainer._get_per_token_logps_and_entropies, GRPOTrainer._generate_and_score_completions

    def computing(self: Any, model: Any, ids: Any, mask: Any, keep: int, **options: Any) -> Any:
        found = compute(self, model, ids, mask, keep, **options)
        seen.append((ids, mask, found[0].detach()))
        return found

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", computing)
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", lambda self, rows: (seen.append(rows), score(self, rows))[1])
    told = replace(job(tmp_path), model=member(family), max_pixels=None)
    sc_grpo.train(
        told, [samples()[0], samples()[3]], validation=[], preset="paper", rewards={"accuracy": 1.0}, grid=3, shots=1
    )  # fmt: skip
    rows, (ids, mask, found) = seen[:2]
    assert {len(row["images"]) for row in rows} == {1, 2} and not mask[:, 0].all()
    model, processor = backbones.load_model(member(family)), backbones.load_processor(member(family))
    for row, tokens, kept, logps in zip(rows, ids, mask.bool(), found, strict=True):
        text = backbones.prompt_text(processor, row["prompt"])
        given = processor(images=[row["images"]], text=[text], return_tensors="pt", add_special_tokens=False)
        whole, said = tokens[kept][None], int(kept[-len(logps) :].sum())
        assert whole[:, :-said].equal(given["input_ids"])
        if "mm_token_type_ids" in given:
            given["mm_token_type_ids"] = torch.nn.functional.pad(given["mm_token_type_ids"], (0, said))
        with torch.no_grad():
            logits = model(**{**given, "input_ids": whole, "attention_mask": torch.ones_like(whole)}).logits[0, -said - 1 : -1]
        alone = (logits / RECIPES["paper"].trainer["temperature"]).log_softmax(-1).gather(-1, whole[0, -said:, None])[:, 0]
        torch.testing.assert_close(logps[:said], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "keys, processes, message",
    [
        ({"vllm_mode": "server"}, 1, r"sc_grpo.vllm_mode: TRL sends the weights to a server by NCCL, which needs a GPU.*Set vllm_mode to colocate"),
        ({"vllm_enable_sleep_mode": True}, 1, r"sc_grpo.vllm_enable_sleep_mode: vLLM cannot sleep on a CPU"),
        ({}, 2, r"vLLM on the CPU runs beside one process, and there are 2"),
    ],
)  # fmt: skip
def test_what_vllm_cannot_do_here_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], processes: int, message: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told = replace(job(tmp_path, use_vllm=True, **keys), processes=processes)
    with pytest.raises(ParamsError, match=message):
        sc_grpo.planned(told, samples(), recipe=RECIPES["paper"])


def test_images_that_vllm_would_show_otherwise_are_refused(tmp_path: Path) -> None:
    told = replace(job(tmp_path, use_vllm=True), model=member("llava_onevision"), max_pixels=None)
    with pytest.raises(ModelError, match="vLLM shows this family 2 images otherwise than transformers does"):
        sc_grpo.planned(told, samples(), recipe=RECIPES["paper"], shots=1)


def test_without_vllm_its_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ParamsError, match="vLLM is not installed"):
        rollouts.require_possible(job(tmp_path), type("Config", (), {"use_vllm": True}), images=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_sent_under_the_names_of_the_published_checkpoints(family: str) -> None:
    model = backbones.load_model(member(family))
    assert sorted(rollouts._published(model, name) for name, _ in model.named_parameters()) == names_on_disk(member(family))


def test_each_rollout_has_random_numbers_of_its_own_which_a_resumed_run_draws_again() -> None:
    def run(*, resumed_at: int) -> list[tuple[int, ...]]:
        trainer = SimpleNamespace(
            state=SimpleNamespace(global_step=0),
            model=SimpleNamespace(training=True),
            args=SimpleNamespace(seed=7),
            accelerator=SimpleNamespace(process_index=1),
            vllm_generation=SimpleNamespace(tensor_parallel_size=1),
        )
        seed, found = rollouts.seeds(trainer), []
        for trainer.state.global_step in range(resumed_at, 3):
            for trainer.model.training in (False, True, True):  # a measurement, a rollout, and some of its groups again
                found.append(seed())
        return found

    whole = run(resumed_at=0)
    assert len(set(whole)) == len(whole) == 9 and run(resumed_at=2) == whole[6:]


def test_adapters_are_sent_merged_into_the_weights_under_published_names(tmp_path: Path) -> None:
    import torch
    from accelerate import Accelerator
    from peft import LoraConfig, get_peft_model
    from trl.distributed import DistributedBackend
    from trl.generation.vllm_generation import VLLMGeneration

    folder = member("llava")
    model = get_peft_model(backbones.load_model(folder), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    generation = VLLMGeneration.__new__(VLLMGeneration)
    vars(generation).update(model=model, _dist=DistributedBackend(Accelerator(cpu=True)))
    sent = {rollouts._published(model, name): weights.clone() for name, weights in generation._iter_named_params()}
    assert sorted(sent) == names_on_disk(folder)
    merged = dict(model.merge_and_unload().named_parameters())
    name = next(name for name in merged if name.endswith("q_proj.weight"))
    torch.testing.assert_close(sent[rollouts._published(model.base_model.model, name)], merged[name])


@pytest.mark.parametrize(
    "rollout, message",
    [
        ([1, 5, 5, 5, 2], r"5 tokens and 4, first difference at 3"),  # one image token more
        ([1, 5, 5], r"3 tokens and 4, first difference at 3"),
        ([1, 1, 5, 5, 2], r"first difference at 1"),  # a second BOS
    ],
)
def test_another_prompt_in_vllm_is_told(rollout: list[int], message: str) -> None:
    rollouts.require_same_prompt([1, 5, 5, 2], (1, 5, 5, 2))
    with pytest.raises(ModelError, match=f"vLLM rolls out from another prompt than the learner sees: .*{message}"):
        rollouts.require_same_prompt([1, 5, 5, 2], rollout)


def test_a_server_that_scales_images_otherwise_is_told() -> None:
    from trl.generation.vllm_generation import VLLMGeneration

    # TRL's own pairing, which only needs to know the image token.
    generation = VLLMGeneration.__new__(VLLMGeneration)
    generation.processing_class = type("Processor", (), {"image_token_id": 5})
    place = rollouts._checked(generation._place_features)
    features = {"mm_placeholders": {"image": [{"offset": 0, "length": 2}]}, "kwargs_data": "x"}
    assert place(features, [1, 5, 5, 2])["mm_placeholders"]["image"] == [{"offset": 1, "length": 2}]
    assert place(None, [1, 2]) is None
    with pytest.raises(ModelError, match=r"the vLLM server makes \[2\] tokens of a prompt's images, the learner \[3\]"):
        place(features, [1, 5, 5, 5, 2])


def test_the_difference_is_that_of_the_tokens_that_were_said_and_scored() -> None:
    import torch

    learner, rollout = torch.tensor([[-1.0, -2.0, -9.0]]), torch.tensor([[-1.5, float("nan"), 0.0]])
    found = rollouts.difference(learner, rollout, torch.tensor([[1, 1, 0]]))
    assert (found["mean"].item(), found["max"].item()) == (0.5, 0.5)
    assert rollouts.difference(learner, rollout, torch.tensor([[0, 1, 0]]))["max"].item() == 0.0


def test_a_rollout_of_another_model_stops_the_training_at_once() -> None:
    entry = {"step": 1, "loss": 0.1, "reward": 1.0, f"{DIFFERENCE}/mean": 0.03, f"{DIFFERENCE}/max": 4.0}
    assert collapse([entry], Limits()) is None
    reason = collapse([{**entry, f"{DIFFERENCE}/mean": 0.9}], Limits())
    assert reason is not None and reason.startswith("vLLM and the learner differ by 0.9 nats a token on what vLLM said (at most 4)")
    assert collapse([{**entry, f"{DIFFERENCE}/mean": 0.9}], Limits(mismatch=1.0)) is None


class Server:
    """What TRL asks of a vLLM server, from one whose log-probabilities are not the learner's."""

    mode = "server"

    def __init__(self, trainer: Any) -> None:
        self.accelerator, self.vllm_client, self.base_url = trainer.accelerator, self, "here"
        self.generation_kwargs: dict[str, Any] = {}
        self.done: list[str] = []
        self._place_features = None

    def sync_weights(self) -> None:
        self.done.append("weights")

    def _post(self, address: str) -> None:
        self.done.append(address)

    def generate(self, prompts: list[Any], **_: Any) -> Any:
        self.done.append("generate")
        said = [[20 + row % 4, 30, 40] for row in range(len(prompts))]
        return None, said, [[[-0.25]] * 3 for _ in said], None


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trainers that are made with such a server in place of their own `generate`."""
    made: list[Any] = []
    adapt = rollouts.adapt

    def adapted(trainer: Any) -> Any:
        made.append(trainer)
        trainer.use_vllm, trainer.vllm_generation, trainer._last_loaded_step = True, Server(trainer), -1
        return adapt(trainer)

    monkeypatch.setattr(rollouts, "adapt", adapted)
    return made


def served_training(folder: Path, **limits: float) -> training.Outcome:
    told = replace(job(folder, max_steps=2, logging_steps=1, save_strategy="no"), limits=Limits(**limits))  # type: ignore[arg-type]
    return sc_grpo.train(told, samples(), validation=[], preset="paper", rewards={"accuracy": 1.0}, grid=3)


def test_a_training_whose_rollouts_are_not_the_learners_is_stopped_at_its_first_step(served: list[Any], tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"collapsed at step 1: vLLM and the learner differ by \d.* they are not the same model\. Check that"
    ):
        served_training(tmp_path)
    assert served[0].state.global_step == 1


def test_the_difference_is_logged_each_step_without_trls_correction_as_well(served: list[Any], tmp_path: Path) -> None:
    history = served_training(tmp_path, mismatch=1e9).history
    found = [(entry[f"{DIFFERENCE}/mean"], entry[f"{DIFFERENCE}/max"]) for entry in history if "loss" in entry]
    assert len(found) == 2 and all(0 < mean <= largest for mean, largest in found)


def test_a_server_is_told_stops_and_the_image_token_and_forgets_images_with_each_sending_of_weights(
    served: list[Any], tmp_path: Path
) -> None:
    served_training(tmp_path, mismatch=1e9)
    (trainer,) = served
    assert trainer.vllm_generation.done == ["weights", "here/reset_encoder_cache", "generate"] * 2
    image_token = trainer.processing_class.image_token_id
    assert trainer.vllm_generation.generation_kwargs == {
        "logit_bias": {image_token: -100.0},
        "stop_token_ids": sorted(trainer.eos_token_ids),
    }


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.parametrize("family", FAMILIES)
def test_vllm_rolls_out_from_the_learners_weights_prompts_and_pixels(family: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.rollout_run", family], capture_output=True, text=True, check=False, timeout=1800, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout.rpartition("FOUND")[2])
    # Three steps with the weights sent, to the last digits of float32; the fourth with those of the step before.
    assert max(found["without_image_token"][:3]) < 1e-3 < 1e-2 < found["without_image_token"][3]
    assert found["difference"][3] > 2 * max(found["difference"][:3])
    assert found["image_tokens"] == 0 and found["unended"] == []
    assert {"expanded_twice"} <= found["faults"].keys() and all(
        "from another prompt than the learner" in said for said in found["faults"].values()
    )
