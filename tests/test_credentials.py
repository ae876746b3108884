"""What looks like a secret: refused in parameters, replaced in texts, and in none of the project's files."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from iadr1.credentials import FORMS, is_secret_name, kind_of, redacted
from iadr1.errors import ParamsError
from iadr1.params import load, read

ROOT = Path(__file__).parent.parent
# The password of a server that lives as long as a test, on this machine.
LOOPBACK = re.compile(r"[^\s/@]*@(127\.0\.0\.1|localhost)\b")
# Put together here, so that this file holds none.
EXAMPLES = {
    "a key of AWS": "AKIA" + "Q7" * 8,
    "a token of the Hugging Face hub": "hf_" + "aB3" * 12,
    "a key of OpenAI or Anthropic": "sk-" + "ant-api03-" + "x1Y" * 10,
    "a token of GitHub": "ghp_" + "a1B2" * 9,
    "a token of GitLab": "glpat-" + "a1B2c" * 4,
    "a token of Slack": "xoxb-" + "1234567890-abc",
    "a key of Google": "AIza" + "Sy9" * 11 + "ab",
    "a JSON web token": ".".join(["eyJ" + "hbGciOiJIUzI1", "eyJ" + "zdWIiOiIxMjM0", "c2lnbmF0dXJl" * 2]),
    "a private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "a password in an address": "postgresql://mlflow" + ":s3cr3t" + "@db:5432/mlflow",
}


@pytest.mark.parametrize("kind", FORMS)
def test_every_form_is_found_and_replaced(kind):
    text = f"before {EXAMPLES[kind]} after"
    assert kind_of(text) == kind
    clean = redacted(text, {})
    assert kind_of(clean) is None and clean.startswith("before ") and clean.endswith(" after") and "***" in clean


@pytest.mark.parametrize(
    "text",
    ["sqlite:////tmp/mlflow.db", "http://127.0.0.1:5000/#/experiments", "s3://bucket/prefix", "git@github.com:owner/name.git",
     "https://user@host/path", "postgresql://mlflow:${PASSWORD}@db/mlflow", "sk-learn", "c0ffee" * 10, "models:/iad-r1@staging"],
)  # fmt: skip
def test_what_is_no_secret_is_left_alone(text):
    assert kind_of(text) is None and redacted(text, {}) == text


@pytest.mark.parametrize(
    "name, secret",
    [("AWS_SECRET_ACCESS_KEY", True), ("MLFLOW_TRACKING_PASSWORD", True), ("OPENAI_API_KEY", True), ("HF_TOKEN", True),
     ("PREFECT_API_AUTH_STRING", True), ("hub_token", True), ("AWS_SESSION_TOKEN", True),
     ("max_new_tokens", False), ("eos_token", False), ("pad_token", False), ("AWS_PROFILE", False), ("monkey", False)],
)  # fmt: skip
def test_a_secret_is_known_by_its_name(name, secret):
    assert is_secret_name(name) is secret


def test_the_environment_s_secrets_are_told_by_name():
    environment = {"DB_PASSWORD": "correct horse", "MLFLOW_TRACKING_PASSWORD": "correct horse battery", "USER": "somebody"}
    said = redacted("somebody says correct horse battery, and correct horse", environment)
    assert said == "somebody says $MLFLOW_TRACKING_PASSWORD, and $DB_PASSWORD"


@pytest.mark.parametrize("kind", FORMS)
def test_a_secret_in_a_parameter_file_is_refused_and_not_repeated(tmp_path, kind):
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["fetch"]["path"] = EXAMPLES[kind]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ParamsError) as refused:
        load(tmp_path / "params.yaml")
    assert f"fetch.path holds what looks like {kind}. Parameters are kept in git, DVC and MLflow: remove it" in str(refused.value)
    assert EXAMPLES[kind][-12:] not in str(refused.value)


def test_a_value_under_the_name_of_a_secret_is_refused(tmp_path):
    (tmp_path / "params.yaml").write_text("sc_grpo:\n  hub_token: anything\n")
    with pytest.raises(ParamsError, match=r"sc_grpo\.hub_token holds what looks like a secret"):
        read(tmp_path / "params.yaml")


def test_no_file_that_git_keeps_holds_a_secret():
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    files = [path for name in names if name and (path := ROOT / name).is_file() and path.stat().st_size < 1 << 20]
    assert len(files) > 100
    found = {
        str(path.relative_to(ROOT)): kind
        for path in files
        if (kind := kind_of(LOOPBACK.sub("", path.read_text(encoding="utf-8", errors="ignore"))))
    }
    assert found == {}
