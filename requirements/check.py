"""Imports and starts the parts that pass `pip check` and still break: python requirements/check.py

A group shares a process, and with it the import of torch; two groups run at a time.
"""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

CHECKS = {
    "transformers, trl, vllm": "from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor as Images; Images();"
    "from trl import GRPOTrainer, SFTTrainer; from vllm import LLM",
    "prefect's server": "import prefect.server.api.server as server; server.create_app(ephemeral=True)",
    "mlflow, dvc, great_expectations": "import mlflow.store.tracking.sqlalchemy_store, dvc.repo, dvc_s3, great_expectations",
}


def problem(name: str) -> str | None:
    """What a group says when it fails to import or start."""
    done = subprocess.run([sys.executable, "-c", CHECKS[name]], capture_output=True, text=True)
    return None if done.returncode == 0 else f"{name}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"


def main() -> None:
    """Check every group; exit 1 with a line for each that fails."""
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        problems = [found for found in pool.map(problem, CHECKS) if found]
    if problems:
        sys.exit("\n".join(["check: the environment does not work:", *problems, "Remove .venv and run `make setup`."]))
    print(f"check: {', '.join(CHECKS)} import and start ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
