"""The registered inspector as MLflow loads and serves it: base64 in, the JSON of `iadr1 inspect` out, clear refusals."""

import base64
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from iadr1 import uploads
from iadr1.cli import main
from iadr1.decision import Decision
from iadr1.errors import DatasetError, ModelError
from iadr1.registry import lifecycle, live, registered
from iadr1.registry.store import Store
from tasks import register
from tests.test_tracking import evaluated, release
from tests.tiny import tiny_backbone

SCHEMA = json.loads((Path(__file__).parents[1] / "iadr1" / "schemas" / "inspection.json").read_text())


def picture(side=48, form="PNG"):
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (side, side), "grey").save(content, form)
    return base64.b64encode(content.getvalue()).decode()


@pytest.fixture(scope="module")
def inspector(mlflow_store):
    """A registered version whose model is the tiny backbone; its name in the registry."""
    params, work = release(mlflow_store, "root")
    shutil.copytree(tiny_backbone(), work.models / "sc_grpo", dirs_exist_ok=True)
    evaluated(work, right=9)
    register.main(params, work)
    return "models:/iad-r1@staging"


@pytest.fixture(scope="module")
def loaded(inspector):
    import mlflow

    return mlflow.pyfunc.load_model(inspector)


def test_an_answer_follows_the_published_schema(loaded):
    jsonschema = pytest.importorskip("jsonschema")
    rows = [{"image": picture()}, {"image": "data:image/jpeg;base64," + picture(64, "JPEG"), "reference": picture()}]
    answers = loaded.predict(rows, params={"grid": 4})
    assert [answer["image"] for answer in answers] == ["0", "1"] and all(answer["grid"] == 4 for answer in answers)
    for answer in answers:
        jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(answer)))
    # Random weights say nothing that can be read.
    assert all(answer["answer"] is None and "cannot be read" in answer["error"] for answer in answers)


def test_the_server_answers_what_the_command_line_answers(loaded, inspector, tmp_path, capsys):
    (tmp_path / "part.png").write_bytes(base64.b64decode(picture()))
    assert main(["inspect", str(tmp_path / "part.png"), "--model", inspector, "--json"]) == 1
    by_command = json.loads(capsys.readouterr().out)
    (served,) = loaded.predict([{"image": picture()}])
    changing = ("image", "seconds")
    assert {k: v for k, v in served.items() if k not in changing} == {
        k: json.loads(json.dumps(v)) if k != "cells" else tuple(v) for k, v in by_command.items() if k not in changing
    }


@pytest.mark.parametrize(
    "rows, params, message",
    [
        ([{"image": "no base64!"}], {}, r"image 0: not base64 \(.*\); it starts 'no base64!'"),
        ([{"image": base64.b64encode(b"a text").decode()}], {}, "image 0: no image that can be read"),
        ([{"image": ""}], {}, "image 0: base64 text is expected; found nothing"),
        ([{"image": picture()[:120]}], {}, "image 0: (cannot be read as an image|no image that can be read)"),
        ([{"image": picture(), "reference": "???"}], {}, "reference 0: not base64"),
        ([{"image": picture()}], {"grid": 9}, "grid is 1 to 5 .* found grid 9"),
        ([{"image": picture()}] * 65, {}, "up to 64 images; found grid 3 and 65 images"),
    ],
)
def test_a_request_that_cannot_be_used_is_refused_with_400(loaded, rows, params, message):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=message) as refused:
        loaded.predict(rows, params=params)
    assert refused.value.get_http_status_code() == 400
    # MLflow's server writes the whole request into the message before it answers with this.
    refused.value.message = "x" * 10_000
    assert re.search(message, json.loads(refused.value.serialize_as_json())["message"])


def test_a_file_on_the_server_is_never_read(loaded, tmp_path):
    from mlflow.exceptions import MlflowException

    (tmp_path / "part.png").write_bytes(base64.b64decode(picture()))
    with pytest.raises(MlflowException, match="not base64"):
        loaded.predict([{"image": str(tmp_path / "part.png")}])


def test_no_version_holds_a_pickle(inspector):
    found = registered(inspector)
    files = [path.name for path in found.folder.parents[1].rglob("*") if path.is_file()]
    assert "model.safetensors" in files and not [name for name in files if name.endswith((".pkl", ".pickle", ".bin", ".pt"))]
    assert found.settings["max_new_tokens"] == 96 and found.name == "iad-r1 version 1 (staging)"


@pytest.mark.parametrize("name", ["models:/iad-r1@production", "models:/iad-r1/7", "models:/nobody@staging", "models:/x"])
def test_a_name_that_the_registry_does_not_know_is_told(inspector, name):
    with pytest.raises(ModelError, match=r"the registry does not give it|a registered model is models:/NAME@ALIAS"):
        registered(name)


def test_large_pictures_are_refused_before_they_are_decoded(monkeypatch):
    with pytest.raises(DatasetError, match="image 0: larger than 20 MiB"):
        uploads.uploaded("A" * (28 << 20), name="image 0")
    bomb = io.BytesIO()
    from PIL import Image

    Image.new("1", (8000, 8000)).save(bomb, "PNG")
    assert len(bomb.getvalue()) < 20_000
    with pytest.raises(DatasetError, match=r"image 0: 8000 x 8000 pixels; 50,000,000 are the most"):
        uploads.uploaded(base64.b64encode(bomb.getvalue()).decode(), name="image 0")


@pytest.mark.parametrize(
    "form, content", [("GIF", None), ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), ("SVG", b"<svg/>")]
)
def test_only_forms_of_photographs_are_opened(form, content):
    text = picture(form=form) if content is None else base64.b64encode(content).decode()
    with pytest.raises(DatasetError, match="its form is not known"):
        uploads.uploaded(text, name="image 0")


@pytest.mark.slow
def test_the_server_answers_over_http(inspector):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        inspector,
        "--env-manager",
        "local",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The server starts uvicorn as a child of its own.
    server = subprocess.Popen(
        command, env={**os.environ, "PATH": path, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}, start_new_session=True
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        where = f"http://127.0.0.1:{port}/invocations"
        status, body = post(where, {"dataframe_records": [{"image": picture()}], "params": {"grid": 2}})
        assert status == 200 and body["predictions"][0]["grid"] == 2 and body["predictions"][0]["status"]
        status, body = post(where, {"inputs": [{"image": "nothing"}]})
        assert (status, body["message"]) == (400, "image 0: not base64 (Incorrect padding); it starts 'nothing'.")
        assert post(where, {"inputs": [{"picture": "x"}]})[0] == 400
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def wait_for(url, server, seconds=280):
    for _ in range(seconds):
        try:
            return urllib.request.urlopen(url, timeout=5)
        except OSError:
            assert server.poll() is None, "the server has ended"
            time.sleep(1)
    raise AssertionError("the server did not start")


def post(url, content):
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


# Last, because nothing leads back from production to staging.
def test_without_a_name_production_is_taken_before_staging(inspector):
    assert live().name == "iad-r1 version 1 (staging)"
    store = Store.at("iad-r1")
    decided = store.history().entries[-1].decision
    lifecycle.promote(
        store, lifecycle.staged, to="production", who="ada", why="a test", judge=lambda version, live: Decision.from_json(decided)
    )
    assert live().name == "iad-r1 version 1 (production)"
    with pytest.raises(ModelError, match=r"models:/iad-r1@staging: the registry does not give it \(no version is staging\)"):
        registered("models:/iad-r1@staging")
