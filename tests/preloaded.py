"""Imports what stages import while they run: in the server that forks their processes, so that it is done once."""

import os
from importlib import import_module
from importlib.util import find_spec

from iadr1.sc_grpo import _unimported

with _unimported("vllm"):
    import_module("trl.trainer.grpo_trainer")

for name in (
    "trl.trainer.sft_trainer",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen2_5_vl.processing_qwen2_5_vl",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.data",
    "pandas",
):
    import_module(name)

# Imported wherever they are installed: by accelerate, transformers and MLflow.
os.environ.setdefault("DS_ACCELERATOR", "cpu")
for name in ("deepspeed", "mistral_common.protocol.instruct.request", "cv2", "git"):
    if find_spec(name.partition(".")[0]):
        import_module(name)
