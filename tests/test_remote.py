"""Remote models: every protocol through its own SDK against a server that speaks it, with faults; nothing is lost, paid twice or out of order."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from iadr1.errors import DatasetError, EngineError
from iadr1.remote.anthropic_messages import AnthropicMessages
from iadr1.remote.asking import Asker, Patience, Question
from iadr1.remote.bedrock import Bedrock
from iadr1.remote.certainty import certainty
from iadr1.remote.openai_chat import OpenAIChat
from iadr1.remote.pace import Pace, asked_wait, until_whole
from iadr1.remote.pictures import Pictures
from iadr1.remote.purse import Price, Purse
from iadr1.remote.replies import Replies, Reply
from iadr1.remote.server import ServerEngine, generated, served
from tests.providers import TOKENS_IN, TOKENS_OUT, Provider, pictures

PROTOCOLS = ("openai", "anthropic", "bedrock")
OPTIONS = {
    "openai": {"max_tokens": 16, "logprobs": True, "top_logprobs": 3},
    "anthropic": {"max_tokens": 16},
    "bedrock": {"inferenceConfig": {"maxTokens": 16}},
}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "sk-secret", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def painted(folder: Path, levels: range | list[int], side: int = 8) -> list[list[dict[str, object]]]:
    """A chat for each level of red."""
    folder.mkdir(exist_ok=True)
    for level in set(levels):
        Image.new("RGB", (side, side), (level, 0, 0)).save(folder / f"{level}.png")
    text = {"type": "text", "text": "Are there any defects in the query image? Please answer by yes or no."}
    return [[{"role": "user", "content": [{"type": "image", "image": str(folder / f"{level}.png")}, text]}] for level in levels]


def asker_of(server: Provider, kept: Path | None = None, *, purse: Purse | None = None, **changes: object) -> Asker:
    pace = Pace()
    common = {"model": "m", "pictures": Pictures(), "pace": pace, "timeout": 1.0, "options": OPTIONS[server.protocol], **changes}
    patience = Patience(concurrency=int(common.pop("concurrency", 8)), retries=int(common.pop("retries", 6)), first_wait=0.01)  # type: ignore[call-overload]
    if server.protocol == "bedrock":
        client: object = Bedrock(server.url, concurrency=patience.concurrency, **common)  # type: ignore[arg-type]
    else:
        client = {"openai": OpenAIChat, "anthropic": AnthropicMessages}[server.protocol](server.url, key="sk-secret", **common)  # type: ignore[arg-type]
    return Asker(client, "m", patience, pace, Replies(kept) if kept else None, purse or Purse())  # type: ignore[arg-type]


def questions(chats: list[list[dict[str, object]]]) -> list[Question]:
    return [Question(chat, f"{number:064}", TOKENS_IN, 16) for number, chat in enumerate(chats)]


def ask(asker: Asker, asked: list[Question]) -> list[Reply]:
    return asker(asked, lambda count: None)


def said(replies: list[Reply]) -> list[str]:
    return [reply.text for reply in replies]


def expected(levels: range | list[int]) -> list[str]:
    return [f"{'Yes' if level % 2 else 'No'}, {level}" for level in levels]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "faults",
    [
        ("429",),
        ("500", "503"),
        ("529",),
        ("hang",),
        ("close",),
        ("cut",),
        ("broken",),
        ("garbage",),
        ("other",),
        ("429", "500", "cut", "garbage"),
    ],
    ids="-".join,
)
def test_a_fault_that_passes_is_waited_out_and_order_is_kept(tmp_path: Path, protocol: str, faults: tuple[str, ...]) -> None:
    levels = range(6)
    with Provider(protocol, faults=faults, some=2).serving() as server:
        replies = ask(asker_of(server), questions(painted(tmp_path, levels)))
        assert said(replies) == expected(levels)
        assert {(reply.tokens_in, reply.tokens_out, reply.finish) for reply in replies} == {(TOKENS_IN, TOKENS_OUT, "stop")}
        assert set(server.billed.values()) == {1} and len(server.billed) == 6
        assert sorted(server.tries.values()) == [1] * 3 + [1 + len(faults)] * 3


def test_an_error_within_a_stream_is_waited_out(tmp_path: Path) -> None:
    with Provider("openai", faults=("error",)).serving() as server:
        assert said(ask(asker_of(server), questions(painted(tmp_path, range(3))))) == expected(range(3))


def test_bedrock_is_asked_again_when_the_model_itself_failed(tmp_path: Path) -> None:
    with Provider("bedrock", faults=("424",)).serving() as server:
        assert said(ask(asker_of(server), questions(painted(tmp_path, range(2))))) == expected(range(2))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fault", ["refusal", "filtered"])
def test_a_refusal_is_an_answer_that_says_nothing(tmp_path: Path, protocol: str, fault: str) -> None:
    with Provider(protocol, faults=(fault,) * 3, some=2).serving() as server:
        replies = ask(asker_of(server), questions(painted(tmp_path, range(4))))
    assert [reply.finish for reply in replies] == ["refusal", "stop"] * 2
    answers = [generated(reply) for reply in replies]
    assert [answer.finish for answer in answers] == ["refusal", "stop"] * 2
    assert answers[1].text == "Yes, 1" and ("Yes" not in answers[0].text and "No" not in answers[0].text)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_at_the_limit_is_called_truncated(tmp_path: Path, protocol: str) -> None:
    with Provider(protocol, faults=("length",)).serving() as server:
        (reply,) = ask(asker_of(server), questions(painted(tmp_path, range(1))))
    assert generated(reply).truncated and reply.text == "No, 0"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fault", ["401", "403", "404", "400"])
def test_a_fault_that_stays_ends_the_run_at_once_without_the_key_in_the_message(tmp_path: Path, protocol: str, fault: str) -> None:
    with Provider(protocol, faults=(fault,) * 20).serving() as server:
        with pytest.raises(EngineError, match=f"m at .*HTTP {fault}: .*What was answered is kept") as error:
            ask(asker_of(server, concurrency=2), questions(painted(tmp_path, range(20))))
        assert len(server.bodies) <= 3
    advice = {"401": "Correct the key", "403": "Correct the key"}.get(fault, "Correct the address, the model or the parameters")
    assert advice in str(error.value)
    assert protocol == "bedrock" or "sk-secret" not in str(error.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_stays_down_is_given_up_and_what_it_said_is_kept(tmp_path: Path, protocol: str) -> None:
    levels = range(1, 9)
    with Provider(protocol, faults=("503",) * 50, some=8).serving() as server:
        asker = asker_of(server, tmp_path / "replies", retries=2, concurrency=1)
        with pytest.raises(EngineError, match=r"m: no answer after 3 tries, the last with .*\. What was answered is kept"):
            ask(asker, questions(painted(tmp_path, levels)))
        assert len(server.billed) == 7
    with Provider(protocol).serving() as server:
        assert said(ask(asker_of(server, tmp_path / "replies"), questions(painted(tmp_path, levels)))) == expected(levels)
        assert len(server.billed) == 1


def test_what_was_answered_is_not_asked_again_and_equal_questions_are_asked_once(tmp_path: Path) -> None:
    chats = painted(tmp_path, [1, 2, 1, 3, 2])
    asked = [Question(chat, f"{level:064}") for chat, level in zip(chats, [1, 2, 1, 3, 2], strict=True)]
    told: list[int] = []
    with Provider("openai").serving() as server:
        assert said(asker_of(server, tmp_path / "replies")(asked, told.append)) == expected([1, 2, 1, 3, 2])
        assert len(server.bodies) == 3 and sum(told) == 5
        ask(asker_of(server, tmp_path / "replies"), asked)
        assert len(server.bodies) == 3


def test_a_damaged_reply_is_asked_anew(tmp_path: Path) -> None:
    asked = questions(painted(tmp_path, range(1)))
    with Provider("openai").serving() as server:
        ask(asker_of(server, tmp_path / "replies"), asked)
        (file,) = (tmp_path / "replies").rglob("*.json")
        file.write_text(file.read_text()[:20])
        assert said(ask(asker_of(server, tmp_path / "replies"), asked)) == ["No, 0"]
        assert len(server.bodies) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_more_requests_at_a_time_than_asked_for(tmp_path: Path, protocol: str) -> None:
    with Provider(protocol, latency=0.03).serving() as server:
        ask(asker_of(server, concurrency=3), questions(painted(tmp_path, range(12))))
        assert server.most_under_way == 3


def test_a_budget_ends_the_run_before_it_is_passed_and_the_rest_goes_on_later(tmp_path: Path) -> None:
    price, levels = Price(1000.0, 1000.0), range(20)
    one = price.of(TOKENS_IN, TOKENS_OUT)
    asked = questions(painted(tmp_path, levels))
    with Provider("openai").serving() as server:
        purse = Purse(price, budget=7.5 * one)
        with pytest.raises(EngineError, match=r"m: 2\.81 of the budget of 3\.02 is spent.*run the same command with a larger budget"):
            ask(asker_of(server, tmp_path / "replies", purse=purse, concurrency=4), asked)
        assert purse.spent == pytest.approx(7 * one) and len(server.billed) == 7
        again = Purse(price, budget=7.5 * one)
        with pytest.raises(EngineError):
            ask(asker_of(server, tmp_path / "replies", purse=again), asked)
        assert len(server.billed) == 7  # what was paid before counts
        assert said(ask(asker_of(server, tmp_path / "replies", purse=Purse(price)), asked)) == expected(levels)
        assert set(server.billed.values()) == {1} and len(server.billed) == 20


def test_an_image_that_cannot_be_read_is_named_and_what_was_answered_is_kept(tmp_path: Path) -> None:
    asked = questions(painted(tmp_path, range(6)))
    (tmp_path / "5.png").write_bytes(b"no image")
    with Provider("openai").serving() as server:
        with pytest.raises(DatasetError, match=r"5\.png: cannot be read"):
            ask(asker_of(server, tmp_path / "replies", concurrency=1), asked)
        assert len([*(tmp_path / "replies").rglob("*.json")]) == 5


RUN = """
import sys
from pathlib import Path
from iadr1.remote.asking import Asker, Patience, Question
from iadr1.remote.bedrock import Bedrock
from iadr1.remote.pace import Pace
from iadr1.remote.pictures import Pictures
from iadr1.remote.replies import Replies
folder, pace = Path(sys.argv[2]), Pace()
chats = [[{"role": "user", "content": [{"type": "image", "image": str(folder / f"{level}.png")}]}] for level in range(40)]
asker = Asker(Bedrock(sys.argv[1], "m", Pictures(), pace, concurrency=4), "m", Patience(4), pace, Replies(folder / "replies"))
replies = asker([Question(chat, f"{number:064}") for number, chat in enumerate(chats)], lambda count: None)
print("\\n".join(reply.text for reply in replies))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_where_it_was_and_pays_again_at_most_for_what_was_under_way(tmp_path: Path, number: signal.Signals) -> None:
    painted(tmp_path, range(40))
    with Provider("bedrock", latency=0.05).serving() as server:
        command = [sys.executable, "-c", RUN, server.url, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(server.billed) < 12 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert process.returncode != 0
        kept = len([*(tmp_path / "replies").rglob("[0-9]*.json")])
        twice = 0 if number == signal.SIGINT else 4  # Ctrl+C waits for what is under way
        assert 12 - 4 <= kept < 40 and len(server.billed) - kept <= twice
        assert number != signal.SIGINT or "interrupted. What was answered is kept" in errors
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == expected(range(40))
    assert sum(server.billed.values()) - 40 <= twice


def test_bedrock_signs_each_request_and_names_the_model_in_its_path(tmp_path: Path) -> None:
    with Provider("bedrock").serving() as server:
        ask(asker_of(server), questions(painted(tmp_path, range(1))))
        (headers,) = server.headers
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/") and "x-amz-date" in headers
    assert "/us-east-1/bedrock/aws4_request" in headers["authorization"] and "Signature=" in headers["authorization"]
    assert "sk-secret" not in str(headers)


def test_each_protocol_gets_its_key_the_image_before_the_text_and_the_options_as_they_are(tmp_path: Path) -> None:
    for protocol in ("openai", "anthropic"):
        with Provider(protocol).serving() as server:
            ask(asker_of(server), questions(painted(tmp_path, range(1))))
            (headers,), (body,) = server.headers, server.bodies
        assert headers["authorization"] == "Bearer sk-secret"
        assert headers["idempotency-key"] == f"{0:064}"
        assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url" if protocol == "openai" else "image", "text"]
        assert body.items() >= {**OPTIONS[protocol], "model": "m"}.items()


def test_p_yes_comes_with_the_answer_where_the_protocol_tells(tmp_path: Path) -> None:
    with Provider("openai").serving() as server:
        no, yes = ask(asker_of(server), questions(painted(tmp_path, range(2))))
    assert no.p_yes == pytest.approx(1 / 9) and yes.p_yes == pytest.approx(8 / 9)
    with Provider("anthropic").serving() as server:
        assert ask(asker_of(server), questions(painted(tmp_path, range(1))))[0].p_yes is None


@pytest.mark.parametrize(
    "tokens, expected",
    [
        ([("Yes", {"Yes": 0.6, "No": 0.2})], 0.75),
        ([("\n", {}), (" yes", {" yes": 0.5, "No": 0.25, " NO": 0.25, "Maybe": 0.1})], 0.5),
        ([("I", {"I": 1.0}), (" see", {"Yes": 0.9})], None),
        ([("<think>", {"No": 1.0}), ("No", {"No": 1.0}), ("</think><answer>", {}), ("Yes", {"Yes": 0.9, "No": 0.1})], 0.9),
        ([("<answer", {}), (">", {}), ("No", {"no": 0.9, "yes": 0.1})], 0.1),
        ([("<think>", {"No": 1.0}), ("No", {"No": 1.0})], None),
        ([], None),
    ],
)
def test_p_yes_is_read_where_the_answer_begins(tokens: list[tuple[str, dict[str, float]]], expected: float | None) -> None:
    from math import log

    found = certainty([(text, [(other, log(p)) for other, p in others.items()]) for text, others in tokens])
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "2"}, 2.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms", "x-ratelimit-remaining-requests": "5"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "1", "x-ratelimit-reset-tokens": "20s"}, None),
        ({"anthropic-ratelimit-input-tokens-remaining": "0", "anthropic-ratelimit-input-tokens-reset": "2015-10-21T07:28:00Z"}, 0.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, None),
        ({}, None),
    ],
)
def test_the_server_says_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers) == seconds


def test_a_used_up_limit_in_the_headers_of_an_answer_pauses_everybody() -> None:
    pace = Pace()
    pace.heed({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "60s"})
    assert pace.turn() == 0
    pace.heed({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s"})
    assert 59 < pace.turn() <= 60 and 59 < pace.turn() <= 60
    assert until_whole({"x-ratelimit-remaining-requests": "0"}) is None


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_images_are_fitted_never_enlarged_and_keep_their_form(width: int, height: int) -> None:
    for limits in (
        Pictures(),
        Pictures(longest=2048, shortest=768, unit=512),
        Pictures(patches=1536, unit=32),
        Pictures(longest=1568, patches=1560),
    ):
        scaled = limits.size(width, height)
        assert scaled[0] <= width and scaled[1] <= height
        assert not limits.longest or max(scaled) <= limits.longest
        assert not limits.shortest or min(scaled) <= limits.shortest
        assert not limits.patches or -(-scaled[0] // limits.unit) * -(-scaled[1] // limits.unit) <= limits.patches
        if min(scaled) > 20:
            assert scaled[0] / scaled[1] == pytest.approx(width / height, rel=0.1)


@pytest.mark.parametrize(
    "limits, size, tokens",
    [
        (Pictures(longest=2048, shortest=768, unit=512, base=85, each=170), (1024, 1024), 765),  # OpenAI's own examples
        (Pictures(longest=2048, shortest=768, unit=512, base=85, each=170), (2048, 4096), 1105),
        (Pictures(patches=1536, unit=32), (1024, 1024), 1024),
        (Pictures(patches=1536, unit=32), (1800, 2400), 1530),
        (Pictures(longest=1568, patches=1560), (8, 8), 1),
    ],
)
def test_tokens_of_an_image_are_as_the_provider_counts_them(tmp_path: Path, limits: Pictures, size: tuple[int, int], tokens: int) -> None:
    Image.new("1", size).save(tmp_path / "a.png")
    assert limits.tokens(tmp_path / "a.png") == tokens


def test_an_image_is_sent_as_it_is_shown_lossless_and_smaller_where_it_must_be(tmp_path: Path) -> None:
    noise = Image.effect_noise((200, 100), 80).convert("RGB")
    noise.save(tmp_path / "0.png")
    form, content = Pictures().encoded(tmp_path / "0.png")
    with Image.open(io.BytesIO(content)) as sent:
        assert form == "png" and sent.tobytes() == noise.tobytes()
    form, content = Pictures(longest=100, megabytes=0.004).encoded(tmp_path / "0.png")
    with Image.open(io.BytesIO(content)) as sent:
        assert form == "jpeg" and sent.size == (100, 50) and len(content) <= 4000


def test_the_image_that_arrives_is_never_larger_than_the_file(tmp_path: Path) -> None:
    with Provider("openai").serving() as server:
        ask(asker_of(server, pictures=Pictures(longest=512)), questions(painted(tmp_path, range(1), side=20)))
        (content,) = pictures("openai", server.bodies[0]["messages"])
    with Image.open(io.BytesIO(content)) as sent:
        assert sent.size == (20, 20)


def test_replies_on_the_disk_hold_no_key_and_all_that_is_needed(tmp_path: Path) -> None:
    with Provider("openai").serving() as server:
        ask(asker_of(server, tmp_path / "replies"), questions(painted(tmp_path, range(1))))
    (file,) = (tmp_path / "replies").rglob("*.json")
    kept = json.loads(file.read_text())
    assert kept["text"] == "No, 0" and kept["tokens_in"] == TOKENS_IN and kept["seconds"] >= 0
    assert "sk-secret" not in file.read_text() and [*file.parent.iterdir()] == [file]


SMALL = Path(__file__).parents[1] / "backbones" / "small"


def test_a_server_of_ones_own_answers_as_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chats = painted(tmp_path, range(12))
    with Provider("openai", faults=("500",), some=5, models=("other", "small")).serving() as server:
        monkeypatch.setenv("IADR1_ENGINE_URL", f"{server.url} {server.url}")
        engine = ServerEngine(SMALL, batch_size=3, max_new_tokens=7, max_pixels=4096)
        done: list[int] = []
        answers = engine(chats, done.append)
        assert [answer.text for answer in answers] == expected(range(12)) and sum(done) == 12 and server.most_under_way <= 3
        assert answers[1].p_yes == pytest.approx(8 / 9) and answers[1].finish == "stop"
        body = server.bodies[0]
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("small", 0.0, 7)
        assert body["mm_processor_kwargs"]["size"]["longest_edge"] == 4096 and set(body["logit_bias"].values()) == {-100}
        some = dict(pair for found in engine.stream(chats, lambda at: at > 9, pattern="Yes|No") for pair in found.items())
        assert sorted(some) == [10, 11] and server.bodies[-1]["structured_outputs"] == {"regex": "Yes|No"}
        first = next(engine.stream(chats))  # whoever wants no more need not wait for all
        assert len(first) == 1


def test_a_server_that_dies_in_the_middle_is_told_after_what_it_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Provider("openai", faults=("404",), some=5, models=("small",)).serving() as server:
        monkeypatch.setenv("IADR1_ENGINE_URL", server.url)
        engine = ServerEngine(SMALL, batch_size=1, max_new_tokens=7)
        come: list[int] = []
        with pytest.raises(EngineError, match=r"small at http://.*: HTTP 404"):
            for found in engine.stream(painted(tmp_path, range(1, 9))):
                come += found
        assert come == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "models, environment, message",
    [
        (
            ("small",),
            None,
            r"evaluate.engine is server, but \$IADR1_ENGINE_URL is empty. Start `vllm serve .*small --trust-request-mm-kwargs`",
        ),
        (("base", "pa_sft"), "", r"small: no server has a model of this name\. http://.* serves base, pa_sft\. Start `vllm serve"),
        ((), "http://127.0.0.1:9/v1", r"http://127.0.0.1:9/v1: no list of models \(ConnectError\)\. Start the server"),
    ],
)
def test_a_server_that_has_not_the_model_is_told(models: tuple[str, ...], environment: str | None, message: str) -> None:
    with Provider("openai", models=models).serving() as server, pytest.raises(EngineError, match=message):
        served(SMALL, {} if environment is None else {"IADR1_ENGINE_URL": environment or server.url})
