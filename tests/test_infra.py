"""The files of infra/ as far as a machine without Docker, a cluster or a cloud can tell: their tools' own checks, and the rules of docs/infrastructure.md."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.make_infrastructure import document, secret_keys, total
from tasks._environment import TELEMETRY_OFF

ROOT = Path(__file__).parent.parent
INFRA = ROOT / "infra"
IMAGES = sorted((INFRA / "images").glob("*.Dockerfile"))
OVERLAYS = sorted(path.name for path in (INFRA / "k8s" / "overlays").iterdir())
COMPOSE = {"compose.yaml": ["compose.yaml"], "compose.gpu.yaml": ["compose.yaml", "compose.gpu.yaml"]}
SECRET = re.compile(r"PASSWORD|SECRET|_KEY$|AUTH_STRING")


def tool(name: str) -> str:
    """The path of a program, beside this Python or on PATH; the test is skipped where there is none."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def output(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", dockerfile.read_text()))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


@pytest.mark.parametrize("dockerfile", IMAGES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    output(tool("hadolint"), str(dockerfile))


@pytest.mark.parametrize("dockerfile", IMAGES, ids=lambda path: path.stem)
def test_an_image_is_pinned_built_in_two_steps_run_by_nobody_special_and_calls_nobody(dockerfile: Path) -> None:
    told = instructions(dockerfile)
    bases = [rest.split()[0] for word, rest in told if word == "FROM"]
    assert len(bases) == 2 and all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base in bases)
    assert [rest for word, rest in told if word == "USER"] == ["10001:10001"]
    installed = [rest for word, rest in told if word == "RUN" and "pip install" in rest]
    assert installed and all("--constraint" in rest or "lock.txt" in rest for rest in installed)
    (environment,) = (rest for word, rest in told if word == "ENV")
    assert {name: value.strip('"') for name, value in re.findall(r"(\w+)=(\S*)", environment) if name in TELEMETRY_OFF} == TELEMETRY_OFF


@pytest.mark.parametrize("dockerfile", IMAGES, ids=lambda path: path.stem)
def test_an_image_gets_only_what_the_build_context_holds(dockerfile: Path) -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [name for word, rest in instructions(dockerfile) if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]]
    for name in (name.replace("${PROFILE}", profile) for name in copied for profile in ("cpu", "gpu")):
        assert (ROOT / name).is_file(), name
        assert any(Path(name).match(pattern) or Path(name).is_relative_to(pattern) for pattern in kept), name


def merged(names: list[str]) -> dict[str, Any]:
    """What compose reads, without its own merging of files: services by name, the later over the earlier."""
    services: dict[str, Any] = {}
    for name in names:
        for service, keys in yaml.safe_load((INFRA / name).read_text())["services"].items():
            services[service] = {**services.get(service, {}), **keys}
    return services


@pytest.mark.parametrize("names", COMPOSE.values(), ids=COMPOSE)
def test_a_service_of_compose_is_watched_pinned_on_loopback_and_knows_no_secret(names: list[str]) -> None:
    for name, service in merged(names).items():
        assert ("healthcheck" in service) != (service["restart"] == "no"), f"{name}: a health check, or a job that ends"
        assert re.fullmatch(r"[a-z0-9/]+:(?!latest)[\w.-]+", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        secrets = {key: value for key, value in service.get("environment", {}).items() if SECRET.search(key)}
        assert all(re.fullmatch(r"(admin:)?\$\{\w+:\?stands in secrets\.env\}", value) for value in secrets.values()), name


def test_every_secret_of_compose_has_its_line_in_the_example_and_no_value() -> None:
    asked = {name for file in INFRA.glob("compose*.yaml") for name in re.findall(r"\$\{(\w+):\?", file.read_text())}
    told = dict(line.split("=") for line in (INFRA / "secrets.example.env").read_text().splitlines() if not line.startswith("#"))
    assert set(told) == asked and not any(told.values())
    output("git", "check-ignore", "--quiet", "infra/secrets.env")


@pytest.mark.parametrize("names", COMPOSE.values(), ids=COMPOSE)
def test_docker_compose_reads_the_files(names: list[str], tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.env"
    secrets.write_text((INFRA / "secrets.example.env").read_text().replace("=\n", "=x\n"))
    files = [word for name in names for word in ("--file", str(INFRA / name))]
    read = json.loads(output(tool("docker-compose"), "--env-file", str(secrets), *files, "config", "--format", "json"))
    assert set(read["services"]) == set(merged(names))


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What an overlay makes, and the training job that goes beside it."""
    return made(request.param)


@cache
def made(overlay: str) -> list[dict[str, Any]]:
    built = output(tool("kubectl"), "kustomize", str(INFRA / "k8s" / "overlays" / overlay))
    return [*yaml.safe_load_all(built), *yaml.safe_load_all((INFRA / "k8s" / "train.yaml").read_text())]


def pods(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the template of every pod."""
    for each in manifests:
        spec = each.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield each["metadata"]["name"], spec["template"]


def test_the_manifests_have_the_form_that_kubernetes_states() -> None:
    checker = pytest.importorskip("kubernetes_validate")
    for each in made("aws"):  # it has all that there is
        checker.validate(each, "1.34", strict=True)


def test_every_pod_meets_the_restricted_standard_and_its_limits(manifests: list[dict[str, Any]]) -> None:
    (namespace,) = (each for each in manifests if each["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pods(manifests):
        whole = pod["spec"]["securityContext"]
        assert whole["runAsNonRoot"] and whole["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        for container in pod["spec"]["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}, name
            assert re.fullmatch(r"[a-z0-9/]+:(?!latest)[\w.-]+", container["image"]) and "limits" in container["resources"], name


def test_what_a_pod_names_is_there_and_secrets_are_only_named(manifests: list[dict[str, Any]]) -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    for name, pod in pods(manifests):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        named = [("ConfigMap", v["configMap"]["name"]) for v in volumes.values() if "configMap" in v]
        named += [
            ("PersistentVolumeClaim", v["persistentVolumeClaim"]["claimName"]) for v in volumes.values() if "persistentVolumeClaim" in v
        ]
        for container in pod["spec"]["containers"]:
            named += [("ConfigMap", source["configMapRef"]["name"]) for source in container.get("envFrom", ())]
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes), name
            assert [entry["name"] for entry in container["env"] if SECRET.search(entry["name"]) and "value" in entry] == [], name
        assert set(named) <= there, name
    assert "Secret" not in {kind for kind, _ in there}


def test_every_server_is_probed_and_nobody_is_reached_but_by_a_policy(manifests: list[dict[str, Any]]) -> None:
    for each in manifests:
        if each["kind"] == "Deployment":
            assert all("readinessProbe" in box and "livenessProbe" in box for box in each["spec"]["template"]["spec"]["containers"])
    policies = {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    selected = {value for spec in policies.values() for value in _labels(spec["podSelector"])}
    assert {pod["metadata"]["labels"]["app"] for _, pod in pods(manifests)} == selected | ({"vllm"} if "vllm" in policies else set())


def _labels(selector: dict[str, Any]) -> list[str]:
    return [
        *selector.get("matchLabels", {}).values(),
        *(value for each in selector.get("matchExpressions", ()) for value in each["values"]),
    ]


def test_terraform_is_formatted() -> None:
    output(tool("terraform"), "fmt", "-check", "-diff", str(INFRA / "terraform"))


TERRAFORM = "\n".join(re.sub(r"(?m)^\s*#.*", "", path.read_text()) for path in sorted((INFRA / "terraform").glob("*.tf")))


def block(kind: str, name: str) -> str:
    """The text of a resource."""
    found = re.search(rf'(?ms)^resource "{kind}" "{name}" \{{(.*?)^\}}', TERRAFORM)
    assert found, f"there is no {kind}.{name}"
    return re.sub(" +", " ", found[1])


def test_terraform_refers_only_to_what_there_is_and_uses_every_variable() -> None:
    assert set(re.findall(r"\bvar\.(\w+)", TERRAFORM)) == set(re.findall(r'(?m)^variable "(\w+)"', TERRAFORM))
    for kind, prefix in (("resource", ""), ("data", r"data\.")):
        there = {".".join(names) for names in re.findall(rf'(?m)^{kind} "(\w+)" "(\w+)"', TERRAFORM)}
        used = set(re.findall(rf'(?<![\w."/]){prefix}(aws_\w+\.\w+)', TERRAFORM))
        assert used and used <= there, used - there


@pytest.mark.parametrize(
    "kind, name, lines",
    [
        ("aws_db_instance", "this", ["storage_encrypted = true", "deletion_protection = true", "publicly_accessible = false"]),
        ("aws_db_instance", "this", ["manage_master_user_password = true", "backup_retention_period = 14"]),
        ("aws_s3_bucket", "this", ["prevent_destroy = true"]),
        ("aws_s3_bucket_versioning", "this", ['status = "Enabled"']),
        ("aws_s3_bucket_server_side_encryption_configuration", "this", ['sse_algorithm = "aws:kms"']),
        ("aws_s3_bucket_public_access_block", "this", ["block_public_policy = true", "restrict_public_buckets = true"]),
        ("aws_eks_node_group", "gpu", ['capacity_type = "SPOT"', "min_size = 0"]),
        ("aws_launch_template", "node", ['http_tokens = "required"', "encrypted = true"]),
    ],
)
def test_what_terraform_makes_is_encrypted_private_and_hard_to_lose(kind: str, name: str, lines: list[str]) -> None:
    assert [line for line in lines if line not in block(kind, name)] == []


def test_no_right_is_for_everything() -> None:
    rights = re.findall(r'(?ms)^data "aws_iam_policy_document" "pods" \{(.*?)^\}', TERRAFORM)
    assert len(rights) == 1 and '"*"' not in rights[0] and not re.search(r'"\w+:\*"', rights[0])
    assert "password" not in re.sub(r"\w*master_user\w*", "", block("aws_db_instance", "this"))


def test_the_page_is_the_one_that_its_files_make() -> None:
    assert (ROOT / "docs" / "infrastructure.md").read_text() == document()
    assert secret_keys() == ["mlflow-password", "mlflow-session-key", "postgres-password", "prefect-account", "vllm-key"]


def test_a_bill_is_the_sum_of_amounts_at_their_prices() -> None:
    assert total([{"amount": 730, "price": 0.1}, {"amount": 20, "price": 0.115}]) == pytest.approx(75.3)
