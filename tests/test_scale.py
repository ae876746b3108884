"""Several processes share a training: what that changes (nothing but rounding), what is refused, and the files that start it on clusters."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from iadr1 import sharding
from iadr1.errors import ParamsError
from iadr1.samples import write_samples
from tests.stages import ROOT, workspace
from tests.tiny import SIDE, build, tiny_backbone, tiny_samples

DEEPSPEED = ROOT / "infra" / "deepspeed"
FILES = sorted(DEEPSPEED.glob("*.json"))
SLURM, KUBERNETES = ROOT / "infra" / "slurm" / "train.sbatch", ROOT / "infra" / "k8s" / "train.yaml"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_configuration_of_deepspeed_is_what_its_name_says(file: Path) -> None:
    pytest.importorskip("deepspeed")
    sharding.require_usable(str(file), section="pa_sft", quantized=False)
    told = json.loads(file.read_text())
    zero = told["zero_optimization"]
    assert sharding.zero_stage(str(file)) == zero["stage"] == int(file.stem[4])
    assert ("offload_optimizer" in zero) == file.stem.endswith("offload")
    # What TRL decides must not be decided here a second time.
    assert {told[key] for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")} == {"auto"}


def test_there_are_the_four_configurations_that_the_documentation_names() -> None:
    named = set(re.findall(r"zero[23]\w*\.json", (ROOT / "docs" / "scale.md").read_text()))
    assert named == {file.name for file in FILES} and len(FILES) == 4


@pytest.mark.parametrize(
    "launch, message",
    [
        ({"proceses": 2}, "pa_sft.launch.proceses is not a parameter; did you mean processes?"),
        ({"processes": 0}, "pa_sft.launch.processes"),
    ],
)
def test_a_wrong_launch_is_refused_by_its_key(launch: dict[str, int], message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)):
        workspace(pa_sft={"launch": launch})


def checkpoints(folder: Path, **keys: Any) -> Path:
    from tasks._training import job_of

    params, work = workspace(pa_sft=keys)
    return job_of(work, params, "pa_sft", model=tiny_backbone(), samples=[]).checkpoints


def test_a_training_goes_on_with_more_processes_but_not_from_pieces_of_deepspeed(tmp_path: Path) -> None:
    alone, shared = checkpoints(tmp_path), checkpoints(tmp_path, launch={"processes": 2})
    assert alone == shared
    cut = [checkpoints(tmp_path, deepspeed="infra/deepspeed/zero2.json", launch={"processes": count}) for count in (1, 2)]
    assert len({alone, *cut}) == 3


def torchrun_commands() -> Iterator[list[str]]:
    """The arguments of torchrun in the files for clusters."""
    (written,) = re.findall(r"exec torchrun (.*?)' &", SLURM.read_text().replace("\\\n", ""), re.DOTALL)
    yield shlex.split(written.replace("$STAGE", "pa_sft").replace("${SLURM_GPUS_ON_NODE:-1}", "8"))
    _, job = yaml.safe_load_all(KUBERNETES.read_text())
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[0] == "torchrun"
    yield command[1:]


def test_the_files_for_clusters_start_a_stage_with_options_that_torchrun_has() -> None:
    from torch.distributed.run import get_args_parser

    for arguments in torchrun_commands():
        words = [
            word if not word.startswith(("$", "--node-rank=$")) else word.replace("$(NODE_RANK)", "0").replace("$", "")
            for word in arguments
        ]
        words = ["0" if word == "SLURM_NODEID" else word for word in words]
        told = get_args_parser().parse_args(words)
        assert told.module and (ROOT / "tasks" / f"{told.training_script.removeprefix('tasks.')}.py").is_file()
        assert told.training_script_args[0] == "--params" and told.shutdown_timeout > 60


def test_the_script_for_slurm_is_one_that_bash_can_read() -> None:
    assert subprocess.run(["bash", "-n", str(SLURM)]).returncode == 0


def test_the_job_for_kubernetes_finds_its_first_pod_through_its_service() -> None:
    service, job = yaml.safe_load_all(KUBERNETES.read_text())
    pod = job["spec"]["template"]["spec"]
    assert (service["kind"], job["kind"], job["spec"]["completionMode"]) == ("Service", "Job", "Indexed")
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    told = dict(word.removeprefix("--").split("=") for word in pod["containers"][0]["command"] if "=" in word)
    name = job["metadata"]["name"]
    assert told["master-addr"] == f"{name}-0.{service['metadata']['name']}" and pod["subdomain"] == service["metadata"]["name"]
    assert int(told["master-port"]) == service["spec"]["ports"][0]["port"]
    assert int(told["nnodes"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(told["nproc-per-node"]) == pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert int(told["shutdown-timeout"]) < pod["terminationGracePeriodSeconds"]


def run_shared(folder: Path, processes: int, *cases: str) -> None:
    """Train the cases of tests/shared_run.py on so many processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run([*launch, "-m", "tests.shared_run", str(folder), *cases], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


SHARED = (
    "pa_sft-zero2",
    "pa_sft-zero3",
    "pa_sft-zero2-resumed",
    "pa_sft-zero3-resumed",
    "pa_sft-zero2-best",
    "pa_sft-zero3-best",
    "pa_sft-zero3_offload",
    "sc_grpo-zero2",
    "sc_grpo-zero3",
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models of five steps, of each case on two processes and of its stage on one."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("shared")
    (folder / "images").mkdir()
    write_samples(folder / "samples.jsonl", tiny_samples(folder / "images", 16))
    build(folder / "model")
    run_shared(folder, 1, "pa_sft", "sc_grpo", "pa_sft-lora")
    run_shared(folder, 2, "pa_sft", "sc_grpo", "pa_sft-zero3-lora", *SHARED)
    return folder


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["pa_sft", "sc_grpo", *SHARED, "pa_sft-zero3-lora"])
def test_five_steps_on_two_processes_are_those_of_one(shared: Path, case: str) -> None:
    alone = "-".join(word for word in case.split("-") if not word.startswith(("zero", "resumed", "best")))
    before, one, two = (weights(shared / name) for name in ("model", f"{alone}-1", f"{case}-2"))
    moved, apart = difference(one, before), difference(one, two)
    print(f"{case}: moved {moved:.2g}, apart {apart:.2g}")
    assert apart < 1e-4 and apart < moved / 20
    # What is resumed takes no step a second time.
    told = json.loads((shared / f"{case}-2" / "outcome.json").read_text())
    assert told["steps"] == [1, 2, 3, 4, 5] and told["best"] == (5 if "best" in case else None)


@pytest.mark.slow
def test_what_zero_3_has_cut_into_pieces_is_counted_and_saved_whole(shared: Path) -> None:
    from transformers import AutoModelForImageTextToText

    parts = [json.loads((shared / name / "outcome.json").read_text())["parts"] for name in ("pa_sft-1", "pa_sft-zero3-2")]
    assert parts[0] == parts[1]
    for name in ("pa_sft-zero3-2", "pa_sft-zero3-lora-2"):
        model, told = AutoModelForImageTextToText.from_pretrained(shared / name, output_loading_info=True)
        assert not told["missing_keys"] and not told["unexpected_keys"] and model.num_parameters() > 0


def stage(name: str, *options: str, wait: bool = True) -> Any:
    """The stage's own command in the current folder."""
    command = [sys.executable, "-m", f"tasks.{name}", "--params", "params.yaml", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if wait:
        return subprocess.run(command, capture_output=True, text=True, env=environment)
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with prepared samples as the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    Path("images").mkdir()
    samples = tiny_samples(Path("images"), 12)
    build(Path("backbone"))
    for part in ("pa_sft", "sc_grpo", "validation"):
        write_samples(Path("data/prepared", f"{part}.jsonl"), samples[8:] if part == "validation" else samples[:8])
    return tmp_path


def write_params(**changes: Any) -> None:
    """params.yaml of a tiny training on two processes."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    few = {"global_batch_size": 4, "per_device_train_batch_size": 4, "logging_steps": 1, "save_steps": 2, "launch": {"processes": 2}}
    # Plain gradient descent: Adam would make a step of full size even from a rounding error.
    few |= {"optim": "sgd", "learning_rate": 0.1}
    tree["pa_sft"] |= {"backbone": "backbone", "max_pixels": SIDE * SIDE, "num_train_epochs": 2, **few, **changes}
    tree["sc_grpo"] |= {"max_steps": 2, "max_completion_length": 8, **few, **changes}
    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")


@pytest.mark.slow
def test_a_stage_shares_its_training_and_leaves_what_it_leaves_alone(project: Path) -> None:
    import mlflow

    write_params()
    assert stage("pa_sft", "--dry-run").stdout.count("global batch 4 = 2 processes x 2 at once x 1 accumulated") == 1
    done = stage("pa_sft")
    assert done.returncode == 0, done.stderr[-3000:]
    two = weights(Path("models/pa_sft"))
    (run,) = [
        found for found in mlflow.search_runs(search_all_experiments=True, output_format="list") if found.data.tags.get("stage") == "pa_sft"
    ]
    assert run.info.status == "FINISHED" and run.data.params["processes"] == "2" and run.data.params["attention"] == "sdpa"
    metrics = json.loads(Path("reports/pa_sft.json").read_text())
    write_params(launch={"processes": 1})
    assert stage("pa_sft").returncode == 0
    assert difference(two, weights(Path("models/pa_sft"))) < 1e-4
    assert json.loads(Path("reports/pa_sft.json").read_text())["eval_loss"] == pytest.approx(metrics["eval_loss"], abs=1e-4)


@pytest.mark.slow
def test_a_shared_stage_that_is_asked_to_stop_saves_says_so_once_and_goes_on(project: Path) -> None:
    write_params(num_train_epochs=20)
    running = stage("pa_sft", wait=False)
    while running.poll() is None and not list(Path(".checkpoints").rglob("checkpoint-2/COMPLETE")):
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    told = running.communicate()[1]
    assert running.returncode == 143, told[-3000:]
    assert re.findall(r"^pa_sft: asked to stop", told, re.MULTILINE) == ["pa_sft: asked to stop"] and not Path("models/pa_sft").exists()
    saved = {int(path.parent.name.removeprefix("checkpoint-")) for path in Path(".checkpoints").rglob("COMPLETE")}
    assert max(saved) < 40
    # As well on one process as on two.
    write_params(num_train_epochs=20, launch={"processes": 1})
    again = stage("pa_sft")
    assert again.returncode == 0, again.stderr[-3000:]
    assert json.loads(Path("reports/pa_sft.json").read_text())["steps"] == 40


FAILING = """
import os

def fail(verdict, sample, grid):
    if os.environ["RANK"] == "1":
        raise ValueError("nobody thought of this")
    return 1.0
"""


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others_and_is_heard(project: Path) -> None:
    Path("fail.py").write_text(FAILING)
    write_params()
    shutil.copytree("backbone", "models/pa_sft")
    tree = yaml.safe_load(Path("params.yaml").read_text())
    tree["sc_grpo"] |= {"rewards": {"fail.py:fail": 1.0}}
    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    done = stage("sc_grpo")
    assert done.returncode == 1, done.stderr[-3000:]
    assert "sc_grpo: reward 'fail' failed on sample" in done.stderr and not Path("models/sc_grpo").exists()
