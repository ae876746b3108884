"""A DVC remote as docs/data.md sets it up, a folder or a bucket, gives back what was pushed to it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stores import s3

pytestmark = pytest.mark.slow


def dvc(*arguments: str, **environment: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, env={**os.environ, **environment})


def given_back(folder: Path, pushed: bytes, **environment: str) -> bytes:
    """What a file holds after it was pushed, lost here, and pulled."""
    (folder / "model.bin").write_bytes(pushed)
    dvc("add", "--quiet", "model.bin", **environment)
    dvc("push", "--quiet", "model.bin", **environment)
    (folder / "model.bin").unlink()
    shutil.rmtree(folder / ".dvc" / "cache")
    dvc("pull", "--quiet", "model.bin", **environment)
    return (folder / "model.bin").read_bytes()


def test_a_folder_gives_back_what_was_pushed(dvc_project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    dvc("remote", "add", "--default", "store", str(tmp_path_factory.mktemp("share")))
    assert given_back(dvc_project, b"weights") == b"weights"


def test_a_bucket_gives_back_what_was_pushed(dvc_project: Path) -> None:
    import boto3

    keys = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    with s3() as server:
        client = boto3.client("s3", endpoint_url=server.url, aws_access_key_id="somebody", aws_secret_access_key="secret")
        client.create_bucket(Bucket="factory-models")
        dvc("remote", "add", "--default", "store", "s3://factory-models/iadr1")
        dvc("remote", "modify", "store", "endpointurl", server.url)
        assert given_back(dvc_project, b"weights", **keys) == b"weights"
        assert client.list_objects_v2(Bucket="factory-models", Prefix="iadr1/files/md5/")["KeyCount"] == 1
