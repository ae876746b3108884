"""A paid teacher is asked with patience, never twice for what it has answered, and a killed build goes on where it was."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from iadr1.errors import TeacherError
from iadr1.expert_ad.build import drafted
from iadr1.expert_ad.endpoint import Endpoint, EndpointTeacher
from iadr1.expert_ad.pairs import Pair
from iadr1.expert_ad.replies import Kept
from iadr1.expert_ad.review import read_rows
from iadr1.expert_ad.teachers import Request
from iadr1.masks import measured
from iadr1.remote.pace import retry_after
from iadr1.samples import Sample, read_samples
from tasks.prepare import prepared
from tests import layouts
from tests.paid_endpoint import PaidEndpoint, serving
from tests.stages import ROOT, of_folder
from tests.test_expert_ad_build import outputs, params_of


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    image, mask = layouts.picture(tmp_path / "a.png"), layouts.mask(tmp_path / "a_mask.png")
    other = layouts.picture(tmp_path / "b.png")
    query = Sample("p/bolt/train/hs/a", "p", "bolt", (str(image),), True, None, "scratch", mask=str(mask), references=(str(other),))
    found = measured(query, grid=3)
    assert found
    return Pair(*found)


def teacher_of(server: PaidEndpoint, **changes: object) -> EndpointTeacher:
    known = {"url": server.url, "model": "qwen-vl-max", "key": "sk-secret", "timeout": 0.5, "first_wait": 0.01, "retries": 6}
    return EndpointTeacher(Endpoint(**{**known, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "faults", [("429",), ("500", "503"), ("hang",), ("cut",), ("garbage",), ("no choices",), ("429", "500", "cut", "garbage")]
)
def test_a_fault_that_passes_is_waited_out(pair: Pair, faults: tuple[str, ...]) -> None:
    with serving(PaidEndpoint(faults=faults)) as server:
        draft = drafted(pair, teacher_of(server))
        assert draft.fault is None and draft.row.type == "scratch"
        assert set(server.billed.values()) == {1} and len(server.billed) == 2
        assert len(server.log) == 2 * (len(faults) + 1)


def test_the_teacher_sees_three_pictures_then_none_and_is_told_type_and_place_in_the_first_pass_only(pair: Pair) -> None:
    with serving(PaidEndpoint()) as server:
        drafted(pair, teacher_of(server))
        compare, distil = server.bodies
    kinds = [part["type"] for part in compare["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "image_url", "text"]
    assert "at the top left and of the coarse type scratch" in compare["messages"][0]["content"][-1]["text"]
    assert isinstance(distil["messages"][0]["content"], str) and "one of: scratch, score mark" in distil["messages"][0]["content"]


@pytest.mark.parametrize(
    "fault, message",
    [
        ("401", r"HTTP 401 for model qwen-vl-max: .*the key … is not known here.*Correct the address, the key or the model"),
        ("404", "HTTP 404"),
        ("402", "HTTP 402"),
    ],
)
def test_a_fault_that_stays_ends_the_build_at_once_without_the_key_in_the_message(pair: Pair, fault: str, message: str) -> None:
    with serving(PaidEndpoint(faults=(fault,) * 9)) as server:
        teacher = teacher_of(server)
        with pytest.raises(TeacherError, match=message) as error:
            drafted(pair, teacher)
        with pytest.raises(TeacherError, match=message):
            drafted(pair, teacher)
        assert "sk-secret" not in str(error.value) and len(server.log) == 1


def test_an_endpoint_that_stays_down_is_given_up(pair: Pair) -> None:
    with serving(PaidEndpoint(faults=("503",) * 20)) as server:
        with pytest.raises(TeacherError, match=r"no reply after 3 tries, the last with HTTP 503\. What was answered is kept"):
            drafted(pair, teacher_of(server, retries=2))
        assert len(server.log) == 3


def test_a_request_that_is_refused_costs_its_row_and_is_open_again_another_day(pair: Pair, tmp_path: Path) -> None:
    with serving(PaidEndpoint(faults=("400",))) as server:
        teacher = Kept(teacher_of(server), tmp_path / "replies")
        assert drafted(pair, teacher).fault == "the teacher refused the comparison"
        assert drafted(pair, teacher).fault == "the teacher refused the chain"
        assert drafted(pair, teacher).fault is None


def test_without_a_reference_nothing_is_asked(pair: Pair) -> None:
    from dataclasses import replace

    with serving(PaidEndpoint()) as server:
        draft = drafted(replace(pair, query=replace(pair.query, references=())), teacher_of(server))
        assert draft.fault == "no normal image of its product to compare it with" and server.log == []


def test_requests_keep_the_pace(pair: Pair) -> None:
    with serving(PaidEndpoint()) as server:
        teacher = teacher_of(server, per_minute=600)
        started = time.monotonic()
        for attempt in range(1, 6):
            teacher(Request("compare", pair, attempt=attempt))
        assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize("header, seconds", [("2", 2.0), ("-3", 0.0), (None, None), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)])
def test_retry_after_holds_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_the_key_is_in_no_text_of_the_settings() -> None:
    assert "sk-secret" not in repr(Endpoint("http://x/v1", "m", "sk-secret"))


# --- the command -----------------------------------------------------------------------------------------------------------------------


def command(into: Path, images: Path, server: PaidEndpoint, *, rows: int) -> "subprocess.Popen[str]":
    params = params_of(images.parent, rows=rows)
    options = ["--params", str(params), "--images", str(images), "--into", str(into), "--teacher", "qwen-vl-max", "--concurrency", "4"]
    environment = os.environ | {"IADR1_TEACHER_URL": server.url, "IADR1_TEACHER_KEY": "sk-secret", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "iadr1.cli", "expert-ad", "build", *options, "--price", "3", "9", "--timeout", "5"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kept_in(into: Path, name: str = "replies") -> set[str]:
    return {path.stem for path in (into / name).rglob("*.json") if not path.name.startswith(".")}


def test_a_build_from_a_faulty_paid_endpoint_pays_once_for_each_reply_and_keeps_the_secret(tmp_path: Path) -> None:
    layouts.parts(tmp_path / "images")
    with serving(PaidEndpoint(faults=("429", "cut"), nonsense=True)) as server:
        done = command(tmp_path / "out", tmp_path / "images", server, rows=12)
        said, error = done.communicate(timeout=200)
        assert (done.returncode, error) == (0, "")
        assert set(server.billed.values()) == {1} and server.billed.keys() == kept_in(tmp_path / "out")
        assert server.most_under_way <= 4
        requests = len(server.billed)
        assert f"this run asked {requests} requests, {1000 * requests} tokens in and {100 * requests} out" in said
        assert re.search(r"still to be asked: about 32 requests, \d+ tokens in and \d+ out, 0\.\d\d at the price given", said)
        again = command(tmp_path / "out", tmp_path / "images", server, rows=12)
        assert "about 0 requests" in again.communicate(timeout=200)[0] and len(server.billed) == requests
    assert not any(b"sk-secret" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_prepare_asks_the_teacher_that_the_parameters_name_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.parts(tmp_path / "images")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with serving(PaidEndpoint()) as server:
        monkeypatch.setenv("IADR1_TEACHER_URL", server.url)
        for _ in range(2):
            prepared(*of_folder(tmp_path / "images", teacher="qwen-vl-max"))
        assert len(server.log) == len(server.billed) == len(kept_in(Path(".checkpoints/expert_ad")))
        build = command(Path(".checkpoints/expert_ad"), tmp_path / "images", server, rows=10)  # what people review is not paid for again
        assert "about 0 requests" in build.communicate(timeout=200)[0] and len(server.log) == len(server.billed)
    rows = read_samples(Path("data/prepared/pa_sft.jsonl"))
    assert len(rows) == 10 and all("stands out on the part" in str(row.reasoning) for row in rows if row.anomalous)
    assert {row.id: row.reasoning for row in rows}.items() <= {
        row["id"]: row["chain"] for row in read_rows(Path(".checkpoints/expert_ad"))
    }.items()


def test_a_variant_asks_only_for_what_no_other_experiment_has_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.parts(tmp_path / "images")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    requests = []
    with serving(PaidEndpoint()) as server:
        monkeypatch.setenv("IADR1_TEACHER_URL", server.url)
        for name, change in (
            ("full", {}),
            ("share", {"pa_sft_share": 0.4}),
            ("answers", {"chains": "answers_only"}),
            ("coarse", {"types": "coarse"}),
        ):
            params, work = of_folder(tmp_path / "images", teacher="qwen-vl-max", **change)
            prepared(params, replace(work, data=Path("data", name), checkpoints=Path(".checkpoints", name)))
            requests.append(len(server.log))
    # Fourteen first passes; this endpoint compares all images of a class alike, so there is one second pass for each class.
    assert requests == [16, 16, 16, 17], "coarse types are another second pass, and that of defects only"


def test_a_build_that_is_told_to_stop_keeps_what_is_under_way(tmp_path: Path) -> None:
    layouts.parts(tmp_path / "images")
    with serving(PaidEndpoint(latency=0.1)) as server:
        process = command(tmp_path / "out", tmp_path / "images", server, rows=12)
        while len(server.log) < 6 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (1, "iadr1: stopped. What was answered is kept: run the same command again to go on.\n"), said
        assert server.billed.keys() == kept_in(tmp_path / "out") and 6 <= len(server.billed) < 32


@pytest.mark.slow
def test_a_build_killed_20_times_ends_as_one_left_alone_and_pays_for_no_reply_twice(tmp_path: Path) -> None:
    layouts.parts(tmp_path / "images", normal=90, defects=60)
    chooser, kills, into = random.Random(7), 0, tmp_path / "killed"
    with serving(PaidEndpoint(faults=("429", "500?", "cut?"), nonsense=True)) as server:
        alone = command(tmp_path / "alone", tmp_path / "images", server, rows=70)
        assert alone.wait(timeout=300) == 0
    with serving(PaidEndpoint(faults=("429", "500?", "cut?"), nonsense=True, latency=0.03)) as server:
        while True:
            start, kept = len(server.log), kept_in(into)  # kept: what earlier runs have paid for
            process = command(into, tmp_path / "images", server, rows=70)
            until, late = start + chooser.randint(0, 8), chooser.random() * 0.05
            while kills < 20 and process.poll() is None and len(server.log) < until:
                time.sleep(0.002)
            if kills == 20:
                assert process.wait(timeout=300) == 0, process.communicate()
            else:
                time.sleep(late)
                process.send_signal(signal.SIGKILL)
                kills += process.wait(timeout=60) == -signal.SIGKILL
            assert not kept & set(server.log[start:]), "a kept reply was asked for again"
            if process.returncode == 0:
                break
        billed, answered = server.billed, len(kept_in(into))
    assert kills == 20 and outputs(into) == outputs(tmp_path / "alone")
    assert set(billed.values()) == {1} and billed.keys() == kept_in(into) and answered == len(billed)
