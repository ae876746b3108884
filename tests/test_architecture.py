"""The design as it stands in the code: who may import what, stage names, and DVC's knowledge of what a stage runs."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = list(GRAPH)
PYTHON_FILES = sorted(path for folder in ("iadr1", "tasks", "flows", "infra") for path in (ROOT / folder).rglob("*.py"))
SLOW_TO_IMPORT = {
    "torch",
    "torchvision",
    "transformers",
    "trl",
    "vllm",
    "mlflow",
    "great_expectations",
    "pandas",
    "datasets",
    "peft",
    "deepspeed",
    "openai",
    "anthropic",
    "boto3",
    "botocore",
    "httpx",
}
# The SDK of a model's provider, not of the pipeline's storage.
SPEAKS_TO_BEDROCK = ROOT / "iadr1" / "remote" / "bedrock.py"
# Sets boto's waiting times for the drills, and talks to nobody.
SHORTENS_WAITING = ROOT / "infra" / "drills" / "shortened" / "sitecustomize.py"
# MLflow runs this file by itself, in the registered model's own process.
RUN_BY_MLFLOW = ROOT / "tasks" / "_inspector.py"
# The library knows the registry here and nowhere else.
REGISTRY = {ROOT / "iadr1" / "registry" / name for name in ("store.py", "version.py")}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[str]:
    """Dotted names of what is imported; of `from a import b` both a and a.b."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield child
            yield from runtime_nodes(child)


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(runtime_nodes(tree(path)))}


def module_file(name: str) -> Path | None:
    path = ROOT / Path(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def has_code(path: Path) -> bool:
    return path.suffix != ".py" or len(tree(path).body) > 1 or path.name != "__init__.py"


def directly_used(path: Path) -> set[Path]:
    """The project's own modules that a file imports, and the files beside it that it names."""
    if path.suffix != ".py":
        return set()
    names = [name for name in imported(runtime_nodes(tree(path))) if name.partition(".")[0] in ("iadr1", "tasks")]
    # Importing a module runs the packages that it is in.
    names += [".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 1)]
    modules = {file for name in names if (file := module_file(name))}
    constants = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    beside = {
        path.with_name(text)
        for text in constants
        if text and "/" not in text and text.endswith((".yaml", ".json", ".py", ".html", ".css", ".js"))
    }
    return modules | {file for file in beside if file.is_file()}


def closure(path: Path) -> set[Path]:
    """A file and everything of the project that it can run."""
    found, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += directly_used(file)
    return {file for file in found if has_code(file)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_again_when_any_code_that_it_runs_changes(stage):
    expected = sorted(str(file.relative_to(ROOT)) for file in closure(ROOT / "tasks" / f"{stage}.py"))
    stated = sorted(dep for dep in GRAPH[stage]["deps"] if dep.startswith(("iadr1/", "tasks/")))
    assert stated == expected, "dvc.yaml has to state under deps:\n" + "\n".join(f"      - {path}" for path in expected)


def test_a_stage_has_one_name_everywhere():
    entries = {path.stem for path in (ROOT / "tasks").glob("[a-z]*.py")}
    params = yaml.safe_load((ROOT / "params.yaml").read_text()).keys() - {"seed", "experiment"}
    commands = {stage: GRAPH[stage]["cmd"].split()[2] for stage in STAGES}
    assert entries == set(STAGES) == params
    assert commands == {stage: f"tasks.{stage}" for stage in STAGES}


def test_the_flow_names_only_stages_that_there_are():
    from flows.release import RETRIES

    assert set(RETRIES) <= set(STAGES)


def test_every_stage_reads_the_parameter_file_that_the_experiment_names():
    for stage in STAGES:
        assert "--params ${experiment.params}" in GRAPH[stage]["cmd"], stage
        assert [list(entry) for entry in GRAPH[stage]["params"]] == [["${experiment.params}"]], stage


@pytest.mark.parametrize("path", [path for path in PYTHON_FILES if "iadr1" in path.relative_to(ROOT).parts[:1]], ids=lambda path: path.name)
def test_the_library_knows_no_pipeline(path):
    known = {"mlflow"} if path in REGISTRY else {"boto3"} if path == SPEAKS_TO_BEDROCK else set()
    assert not packages(path) & {"prefect", "mlflow", "dvc", "boto3", "great_expectations", "tasks", "flows"} - known


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_slow_to_import_is_imported_where_it_is_used(path):
    at_import = {name.partition(".")[0] for name in imported(tree(path).body)}
    assert path == RUN_BY_MLFLOW or not at_import & SLOW_TO_IMPORT


def test_runs_and_versions_have_one_file_each_that_talks_to_mlflow():
    found = [path.name for path in PYTHON_FILES if "mlflow" in packages(path) and path not in {RUN_BY_MLFLOW, *REGISTRY}]
    assert found == ["_registration.py", "_tracking.py"]


def test_one_file_talks_to_s3():
    others = (SPEAKS_TO_BEDROCK, SHORTENS_WAITING)
    assert [path.name for path in PYTHON_FILES if packages(path) & {"boto3", "botocore"} and path not in others] == ["_storage.py"]


def test_flows_use_prefect_and_the_standard_library_only():
    used = {name for path in (ROOT / "flows").glob("*.py") for name in packages(path)}
    assert used <= set(sys.stdlib_module_names) | {"prefect", "flows"}


def test_the_library_and_its_command_line_do_not_load_torch():
    modules = "iadr1.cli, iadr1.params, iadr1.verdict, iadr1.rewards, iadr1.report, iadr1.gates, iadr1.prompts"
    heavy = "sorted({'torch', 'transformers', 'trl', 'vllm', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"import sys, {modules}; print({heavy})"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_files_and_functions_stay_short(path):
    assert len(path.read_text().splitlines()) <= 400
    long = [node.name for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60]
    assert not long


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_everything_public_says_what_it_is(path):
    public = [node for node in tree(path).body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    assert ast.get_docstring(tree(path)) or not tree(path).body
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_again_when_any_parameter_that_it_reads_changes(stage):
    (keys,) = GRAPH[stage]["params"][0].values()
    # `experiment` says where things are; what stands in a path, a command or the matrix is watched there.
    stated = [*keys, "experiment", *re.findall(r"\$\{([a-z_.]+)\}", str(GRAPH[stage]))]
    files = [file for file in closure(ROOT / "tasks" / f"{stage}.py") if file.parent.name == "tasks" and file.name not in SHARED]
    read = {name for file in files for name in params_read(tree(file))}
    assert sorted(name for name in read if not any(f"{name}.".startswith(f"{key}.") for key in stated)) == []


# What they read, they read for the stage that has stated it.
SHARED = {"_run.py", "_tracking.py"}


def params_read(module: ast.Module) -> Iterator[str]:
    """`section.key` or `seed` of every expression params.section.key in a module."""
    for node in ast.walk(module):
        match node:
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="params"), attr=section), attr=key):
                yield f"{section}.{key}"
            case ast.Attribute(value=ast.Name(id="params"), attr="seed"):
                yield "seed"
