"""Imports and starts the parts that pass `pip check` and still break: python requirements/check.py

Each group runs in a process of its own, as in a real run; two at a time.
"""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

CHECKS = {
    "vllm": "import vllm; vllm.LLM",
    "trl": "from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer",
    "prefect server": "import prefect, prefect.server.api.server as server; server.create_app(ephemeral=True)",
    "transformers": "from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor as Images; Images()",
    "great_expectations": "import great_expectations",
    "mlflow": "import mlflow.pyfunc, mlflow.store.tracking.sqlalchemy_store",
    "dvc": "import dvc.repo, dvc_s3",
    "iadr1": "import iadr1, tasks._run, flows",
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
        sys.exit("\n".join(["check: these parts of the environment do not work together:", *problems, "Remove .venv and run `make setup`."]))
    print(f"check: {', '.join(CHECKS)} import and start ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
