"""What docs/security.md promises: no pickle on a model's path, no code that a model brings, no connection that nobody asked for."""

import ast
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from iadr1.errors import ModelError, ParamsError
from iadr1.params import load
from tests.test_architecture import PYTHON_FILES, tree
from tests.watched import beyond_loopback, guarded, traced

ROOT = Path(__file__).parent.parent
PREDICTIONS = str(ROOT / "tests" / "golden" / "predictions.jsonl")
UNPICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_of_ours_unpickles_or_runs_what_it_reads(path):
    for node in ast.walk(tree(path)):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        assert not {name.partition(".")[0] for name in names} & UNPICKLES
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            assert called not in RUNS_TEXT and not called.endswith(("read_pickle", "to_pickle")), called
            assert called != "torch.load" or options.get("weights_only") == "True"
            assert called != "torch.save" or path.name == "_backbone.py"  # a scratch file of the lesson that is being taught
            assert called != "yaml.load" or "SafeLoader" in path.read_text()
            assert options.get("allow_pickle") in (None, "False") and options.get("shell") in (None, "False")
            assert options.get("trust_remote_code") in (None, "False") and options.get("weights_only") != "False"
            if called.endswith(".from_pretrained") and "Config" not in called:
                spread = [ast.unparse(option.value) for option in node.keywords if option.arg is None]
                assert options.get("trust_remote_code") == "False" or "safe" in spread, ast.unparse(node)


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return Path.touch, (self.mark,)


@pytest.mark.slow
def test_a_model_folder_with_pickles_and_code_beside_its_weights_runs_neither(tmp_path):
    from iadr1.backbones import load_model, load_processor
    from tests.tiny import tiny_backbone

    mark, folder = tmp_path / "ran", Path(shutil.copytree(tiny_backbone(), tmp_path / "model"))
    bomb = pickle.dumps(Bomb(mark))
    for name in ("pytorch_model.bin", "training_args.bin", "model.pt", "model.pkl", "optimizer.pt", "adapter_model.bin"):
        (folder / name).write_bytes(bomb)
    (folder / "modeling_own.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Own: pass\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForImageTextToText": "modeling_own.Own"}}))
    load_model(folder)
    load_processor(folder)
    assert not mark.exists()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no safetensors weights; found"):
        load_model(folder)
    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists(), "the bomb is one"


@pytest.mark.parametrize(
    "section, keys", [("sc_grpo", {"model_init_kwargs": {"trust_remote_code": True}}), ("pa_sft", {"trust_remote_code": True})]
)
def test_a_parameter_that_lets_a_model_run_code_is_refused(tmp_path, section, keys):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params[section] |= keys
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ParamsError, match=rf"{section}\..*trust_remote_code: no model runs code of its own here"):
        load(tmp_path / "params.yaml")


def test_nothing_that_we_start_listens_beyond_loopback():
    commands = [*PYTHON_FILES, ROOT / "Makefile"]
    # The doctor tells of it, and a GPU's cluster is told where the other machines are.
    found = [path.name for path in commands if "0.0.0.0" in path.read_text()]
    assert found == []


def test_the_watch_sees_and_forbids_what_leaves_this_machine(tmp_path):
    code = "import urllib.request as u, subprocess, sys\ntry: u.urlopen('http://192.0.2.1/')\nexcept OSError as e: print(e)\n"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    done, noted = guarded(tmp_path, sys.executable, "-c", child)
    assert "a test forbids 192.0.2.1" in done.stdout and [line.split()[0] for line in noted] == ["192.0.2.1"]
    trace = '7 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = 0\n' \
            '7 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0\n' \
            '7 connect(3, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)}, 28) = 0\n' \
            '7 connect(3, {sa_family=AF_INET, sin_port=htons(5000), sin_addr=inet_addr("127.0.0.1")}, 16) = 0\n'  # fmt: skip
    assert beyond_loopback(trace) == {"192.0.2.1:443", "127.0.0.53:53", "2001:db8::1:80"}


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "iadr1.cli", "doctor"),
        ("-m", "iadr1.cli", "report", PREDICTIONS),
        ("-m", "tasks.fetch", "--help"),
        ("-m", "iadr1.cli", "systems"),
    ],
    ids=lambda command: " ".join(command[1:3]),
)
def test_commands_reach_nobody(tmp_path, command):
    done, noted = guarded(tmp_path, sys.executable, *command)
    assert (done.returncode, noted) == (0, []), done.stderr


@pytest.mark.slow
def test_the_library_alone_reaches_nobody_either(tmp_path):
    """Without what `make setup` does for a process: `pip install iadr1` and a store of models."""
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    done, noted = guarded(tmp_path, sys.executable, "-m", "iadr1", "registry", "list", protected=False, **store)
    assert noted == [] and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.timeout(3600)
def test_a_whole_release_reaches_nobody(tmp_path):
    """Every stage, DVC, MLflow and Prefect with its server, in the smallest profile: at the level of system calls."""
    from tests.test_chain import PARTS

    for name in PARTS:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "smoke", "real", "rows")
        shutil.copytree(source, tmp_path / name, ignore=ignored) if source.is_dir() else shutil.copy(source, tmp_path / name)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "home").mkdir()
    told = {"HOME": str(tmp_path / "home"), "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "400"}
    done, reached = traced(tmp_path, sys.executable, "-m", "flows.release", "--experiment", "smoke", **told)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert reached == set()
