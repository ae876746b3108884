"""What every process of the project's environment begins with; the set-up makes Python import it at start (a .pth file), so it stays tiny.

Children find the environment's own commands, no dependency sends telemetry, and torchvision can be imported beside a CPU build of torch.
"""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "DVC_NO_ANALYTICS": "1",
    "DVC_STUDIO_OFFLINE": "true",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "WANDB_MODE": "disabled",
}


def start() -> None:
    """Prepare this process and those that it will start."""
    switch_telemetry_off()
    _put_own_commands_first()
    # Python reads the .pth files of an environment twice.
    if not any(isinstance(finder, _TorchvisionOperators) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TorchvisionOperators())


def switch_telemetry_off() -> None:
    """Ask every dependency not to call home, unless the person's environment says otherwise."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)


def _put_own_commands_first() -> None:
    # `.venv/bin/dvc repro` starts `python -m tasks.…`: it has to be this environment's python although nobody activated it.
    own, path = os.path.join(sys.prefix, "bin"), os.environ.get("PATH", os.defpath)
    if sys.prefix != sys.base_prefix and path.split(os.pathsep)[0] != own:
        os.environ["PATH"] = own + os.pathsep + path


class _TorchvisionOperators(MetaPathFinder):
    """Declares torchvision's two operators before its first import where its compiled library wants a CUDA that is not there."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Never finds a module; other finders go on after it."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            _declare_missing_operators()
        return None


def _declare_missing_operators() -> None:
    spec = PathFinder.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    import torch

    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(library))
    except OSError:
        # torch drops the declarations when the object that made them is collected.
        torch._iadr1_torchvision = library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
