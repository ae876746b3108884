"""One step is the same on one process and on two: the global batch, its groups and its loss do not depend on how many share it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from iadr1.samples import write_samples
from tests.tiny import build, tiny_samples

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pa_sft", "sc_grpo"])
def test_one_step_is_the_same_on_one_process_and_on_two(stage: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    (tmp_path / "images").mkdir()
    write_samples(tmp_path / "samples.jsonl", tiny_samples(tmp_path / "images", 8))
    build(tmp_path / "model")
    before = load_file(tmp_path / "model" / "model.safetensors")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    for processes in ("1", "2"):
        command = [*launch, processes, "-m", "tests.one_step", stage, str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / f"{stage}-{processes}" / "model.safetensors") for processes in (1, 2))
    moved = max((one[name] - before[name]).abs().max().item() for name in one)
    assert moved > 1e-4
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5 * moved + 1e-6)
    logged = [json.loads((tmp_path / f"{stage}-{processes}" / "history.json").read_text())[0] for processes in (1, 2)]
    assert logged[0]["grad_norm"] == pytest.approx(logged[1]["grad_norm"], rel=1e-4)
