"""Several processes that share one training: the way they talk, and a model that DeepSpeed has cut into pieces (ZeRO-3) put together again."""

import importlib.util
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iadr1.errors import ParamsError

GATHERS = "stage3_gather_16bit_weights_on_model_save"
SHARED_MEMORY = "deepspeed_shm_comm"


def zero_stage(config: Any) -> int:
    """The stage of ZeRO that a DeepSpeed configuration (a file or its content) states, 0 without one."""
    return int(_zero(config).get("stage", 0)) if config else 0


def _zero(config: Any) -> Mapping[str, Any]:
    content = config if isinstance(config, Mapping) else json.loads(Path(config).read_text(encoding="utf-8"))
    found: Mapping[str, Any] = content.get("zero_optimization", {})
    return found


def require_usable(config: Any, *, section: str, quantized: bool) -> None:
    """Raise ParamsError for a DeepSpeed configuration that cannot be read, run or saved from."""
    name = f"params.yaml: {section}.deepspeed"
    if importlib.util.find_spec("deepspeed") is None:
        raise ParamsError(f"{name}: the package deepspeed is not installed. Install the gpu extra, or remove the key.")
    if not isinstance(config, Mapping) and not Path(config).is_file():
        raise ParamsError(f"{name}: there is no file {config}. Those of this project are in infra/deepspeed.")
    try:
        zero = _zero(config)
    except ValueError as error:
        raise ParamsError(f"{name}: {config} is not JSON ({error}). Mend that line.") from error
    if zero.get("stage") == 3 and not zero.get(GATHERS):
        raise ParamsError(f"{name}: {config} does not set zero_optimization.{GATHERS}, and no model could be saved. Set it to true.")
    if zero.get("stage") == 3 and quantized:
        raise ParamsError(f"{name}: ZeRO-3 cannot cut 4-bit weights of several types. Take infra/deepspeed/zero2.json with quantized LoRA.")


def join(args: Any) -> None:
    """Let DeepSpeed talk over the processes that the trainer has joined; on the CPU it would else see itself alone when a model is loaded in pieces."""
    import torch

    if args.deepspeed and torch.distributed.is_available() and torch.distributed.is_initialized():
        import deepspeed

        # It calls some of torch's functions by their old names, hundreds of times a step.
        warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+_tensor` is deprecated", FutureWarning)
        # Its own collectives on shared memory need a compiler and minutes; gloo does the same.
        deepspeed.ops.__compatible_ops__[SHARED_MEMORY] = False
        deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), auto_mpi_discovery=False)


@contextmanager
def unsharded() -> Iterator[None]:
    """Models are loaded whole inside, in one process, while transformers would cut each of them into pieces under ZeRO-3."""
    from transformers.integrations import deepspeed

    before = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = before


def whole_state(trainer: Any) -> dict[str, Any] | None:
    """The weights under their names where ZeRO-3 has cut them into pieces, on the first process; None where they are whole. All processes have to call it."""
    if zero_stage(trainer.args.deepspeed) != 3:
        return None
    state: dict[str, Any] | None = trainer.accelerator.get_state_dict(trainer.deepspeed)
    return state
