"""What makes a training fast or small: the same model comes out, and what the machine or the family lacks is refused by its key."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from iadr1 import acceleration, backbones, lora, pa_sft
from iadr1.errors import ParamsError
from iadr1.samples import Sample
from tests import test_pa_sft
from tests.stages import ROOT
from tests.test_plan import job
from tests.tiny import tiny_backbone, tiny_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return tiny_samples(tmp_path_factory.mktemp("images"), 12)


def cut(**zero: Any) -> dict[str, Any]:
    return {"zero_optimization": zero}


@pytest.mark.parametrize(
    "keys, adapters, message",
    [
        ({"deepspeed": "infra/deepspeed/zero4.json"}, {}, r"pa_sft\.deepspeed: there is no file .*zero4\.json.*infra/deepspeed"),
        ({"deepspeed": "README.md"}, {}, r"README\.md is not JSON"),
        ({"deepspeed": cut(stage=3)}, {}, "does not set zero_optimization.stage3_gather_16bit_weights_on_model_save"),
        ({"use_liger_kernel": True}, {}, "pa_sft.use_liger_kernel: (the package liger-kernel is not installed|Liger's kernels need a GPU)"),
        ({}, {"r": 2, "quantized": "int3"}, r"pa_sft\.lora\.quantized: 'int3' is not a kind of 4-bit number; take one of nf4, fp4"),
    ],
)
def test_what_cannot_be_run_is_refused_by_its_key(
    keys: dict[str, Any], adapters: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "deepspeed" in keys:
        pytest.importorskip("deepspeed")
    monkeypatch.chdir(ROOT)
    with pytest.raises(ParamsError, match=message):
        acceleration.require(keys, adapters, tiny_backbone(), section="pa_sft")


def test_four_bits_and_zero_3_do_not_go_together() -> None:
    pytest.importorskip("deepspeed")
    pytest.importorskip("bitsandbytes")
    keys = {"deepspeed": str(ROOT / "infra" / "deepspeed" / "zero3.json")}
    with pytest.raises(ParamsError, match=r"Take infra/deepspeed/zero2\.json with quantized LoRA"):
        acceleration.require(keys, {"quantized": "nf4"}, tiny_backbone(), section="pa_sft")


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_four_bits_need_their_package() -> None:
    with pytest.raises(ParamsError, match=r"pa_sft\.lora\.quantized: the package bitsandbytes is not installed"):
        lora.require_quantizable({"r": 2, "quantized": "nf4"}, section="pa_sft")


@pytest.mark.gpu
def test_a_gpu_in_16_bits_takes_flash_attention_where_it_is_installed() -> None:
    expected = "flash_attention_2" if importlib.util.find_spec("flash_attn") else "sdpa"
    assert acceleration.model_options({"bf16": True})["attn_implementation"] == expected
    assert acceleration.model_options({"bf16": False})["attn_implementation"] == "sdpa"


def test_the_attention_that_params_name_is_taken_and_told(samples: list[Sample], tmp_path: Path) -> None:
    told = [
        test_pa_sft.trained(tmp_path / name, samples, max_steps=1, **keys)[1].attention
        for name, keys in (("best", {}), ("named", {"model_init_kwargs": {"attn_implementation": "eager"}}))
    ]
    assert told == [acceleration.model_options({"bf16": False})["attn_implementation"], "eager"]


def test_activation_checkpointing_changes_no_weight(samples: list[Sample], tmp_path: Path) -> None:
    plain, checkpointed = (
        test_pa_sft.trained(tmp_path / str(on), samples, max_steps=2, gradient_checkpointing=on)[0] for on in (False, True)
    )
    assert plain == checkpointed


def keeps(models: list[Any]) -> Any:
    """A callback that keeps the model as it is at the end of the training."""
    from transformers import TrainerCallback

    class Keep(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
            models.append(model)

    return Keep()


def test_a_model_trained_on_4_bit_weights_is_saved_as_it_was_trained_in_the_layout_it_came_in(
    samples: list[Sample], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    import torch
    from safetensors.torch import load_file

    models: list[Any] = []
    four_bits = {"r": 4, "quantized": "nf4"}
    quantized = job(
        tmp_path, {**test_pa_sft.KEYS, "max_steps": 3, "learning_rate": 1e-2}, freeze=("vision",), lora=four_bits, callbacks=[keeps(models)]
    )
    outcome = pa_sft.train(quantized, samples[:8], validation=())
    base, saved, (trained,) = backbones.load_model(tiny_backbone()), backbones.load_model(quantized.into), models
    assert saved.config.to_dict().get("quantization_config") is None
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_backbone(), quantized.into))
    assert before.keys() == after.keys() and {weight.dtype for weight in after.values()} == {torch.float32}
    # The parts are those of the model, not of its packed bytes.
    whole = backbones.part_sizes(base)
    assert outcome.parts["vision"] == {"parameters": whole["vision"]["parameters"], "trained": 0}
    tokens = torch.arange(30, 60)[None]
    with torch.no_grad():
        said = [model.eval()(input_ids=tokens.to(model.device)).logits.float().cpu() for model in (base, trained, saved)]
    apart, moved = ((one - said[1]).abs().max().item() for one in (said[2], said[0]))
    # The adapters compute in bfloat16.
    assert apart < 0.02 and apart < moved / 20


def test_the_plan_counts_4_bit_weights_as_4_bits(samples: list[Sample], tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    weights = [
        pa_sft.planned(job(tmp_path, test_pa_sft.KEYS, lora={"r": 2, **more}), samples).memory["weights"]
        for more in ({}, {"quantized": "nf4"})
    ]
    assert weights[1] < weights[0] / 2
