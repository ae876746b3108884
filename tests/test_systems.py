"""The systems of Table 1: what each needs, what it is asked, what it costs, and how its answers come into the same report."""

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from iadr1.cli import main
from iadr1.engines import images_of
from iadr1.errors import ReportError
from iadr1.remote.replies import Reply
from iadr1.report import read_predictions
from iadr1.samples import Sample, write_samples
from iadr1.systems.catalogue import catalogue, missing, standing
from iadr1.systems.contract import prompt_text, read_answer, request_line
from iadr1.systems.evaluation import Exam, client
from tests.providers import TOKENS_IN, TOKENS_OUT, Provider

ROOT = Path(__file__).parents[1]
SCHEMAS = {name: json.loads((ROOT / "iadr1" / "schemas" / f"{name}.json").read_text()) for name in ("request", "answer")}
TODAY = date(2026, 11, 22)
TABLE_1 = [
    "GPT-4o-mini", "GPT-4o", "GPT-4.1-nano", "GPT-4.1-mini", "GPT-4.1", "Claude-Sonnet-4", "LLaVA-OneVision-SI-0.5B", "Anomaly-OV-0.5B",
    "Qwen2.5-VL-Instruct-3B", "AnomalyR1-3B", "InternVL-2.5-4B", "Qwen2.5-VL-Instruct-7B", "AnomalyGPT-7B", "LLaVA-OneVision-SI-7B",
    "Anomaly-OV-7B", "LLaVA-1.5-13B", "LLaVA-1.6-34B", "Qwen2.5-VL-Instruct-72B",
]  # fmt: skip


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Eight images whose level of red tells the answer that the provider gives, with the truth the other way round for the last."""
    found = []
    for level in range(8):
        Image.new("RGB", (8, 8), (level, 0, 0)).save(tmp_path / f"{level}.png")
        references = (str(tmp_path / "0.png"),) if level % 2 else ()
        image = (str(tmp_path / f"{level}.png"),)
        found.append(Sample(f"d/bolt/{level}", "d", "bolt", image, bool(level % 2) != (level == 7), references=references))
    write_samples(tmp_path / "d.jsonl", found)
    return found


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in catalogue().providers.values():
        for name in (*provider.keys, *provider.needs, provider.url_from or ""):
            monkeypatch.delenv(name, raising=False)


def evaluated(folder: Path, *options: str, system: str = "gpt-4o") -> int:
    return main(["evaluate", system, "--samples", str(folder / "d.jsonl"), "--into", str(folder / "out"), *options])


def test_every_row_of_table_1_is_there_in_its_order_with_the_papers_figure() -> None:
    found = catalogue()
    rows = [system.published for system in found.systems.values() if system.published and system.stage == "other"]
    assert [row for row in dict.fromkeys(rows) if row != "Qwen-VL-Max"] == TABLE_1
    figures = {name: standing(found, name, {}, TODAY).paper for name in found.systems}
    assert figures["gpt-4.1"] == 78.3 and figures["claude-sonnet-4"] == 72.7 and figures["qwen-vl-max"] == 77.9
    assert [name for name, figure in figures.items() if figure is None] == ["claude-sonnet-5-5", "claude-sonnet-5-5-bedrock"]
    assert sum(system.stage == "sc_grpo" for system in found.systems.values()) == 4


def test_the_list_tells_what_each_system_needs_and_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["systems", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["gpt-4o"]["missing"] == ["$OPENAI_API_KEY"] and rows["gpt-4o"]["sdk"] == "openai"
    assert rows["gpt-4o"]["command"].startswith("iadr1 evaluate gpt-4o --samples ") and "--budget" in rows["gpt-4o"]["command"]
    assert rows["qwen2.5-vl-3b"]["missing"] == ["hf download Qwen/Qwen2.5-VL-3B-Instruct --local-dir models/Qwen2.5-VL-3B-Instruct"]
    assert main(["systems"]) == 0
    told = capsys.readouterr().out
    assert all(name in told and row["command"] in told for name, row in rows.items())


@pytest.mark.parametrize(
    "system, environment, today, lacks",
    [
        ("gpt-4o", {"OPENAI_API_KEY": "k"}, date(2026, 11, 22), []),
        ("gpt-4o", {"OPENAI_API_KEY": "k"}, date(2027, 1, 14), ["retired on 2027-01-14"]),
        ("claude-sonnet-4", {"ANTHROPIC_API_KEY": "k"}, date(2026, 6, 14), []),
        ("claude-sonnet-5-5-bedrock", {"AWS_PROFILE": "p"}, TODAY, ["$AWS_REGION"]),
        ("claude-sonnet-5-5-bedrock", {"AWS_PROFILE": "p", "AWS_REGION": "us-east-1"}, TODAY, []),
        ("internvl-2.5-4b", {}, TODAY, ["$IADR1_ENGINE_URL"]),
    ],
)
def test_what_is_missing_is_named(system: str, environment: dict[str, str], today: date, lacks: list[str]) -> None:
    found = catalogue()
    assert missing(found, found.system(system), environment, today) == lacks


def test_every_price_has_a_day_and_a_source_and_every_paid_system_a_price() -> None:
    found = catalogue()
    for name, system in found.systems.items():
        assert (system.price is not None) == (system.provider in ("openai", "anthropic", "bedrock", "qwen")), name
        if system.price:
            assert system.price.as_of <= TODAY and system.price.source.startswith("https://")


@pytest.mark.parametrize(
    "changes, message",
    [
        ("systems: {gpt-4o: {prize: 3}}", "systems.gpt-4o.prize: Extra inputs are not permitted"),
        ("systems: {gpt-4o: {price: {tokens_in: much}}}", "systems.gpt-4o.price.tokens_in: Input should be a valid number"),
        ("images: {qwen: {longst: 3}}", "images.qwen.longst: Unexpected keyword argument"),
        ("- 1", "holds no keys"),
        ("{", "not YAML"),
    ],
)
def test_a_wrong_change_to_the_catalogue_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: str, message: str) -> None:
    (tmp_path / "changes.yaml").write_text(changes)
    assert main(["systems", "--prices", str(tmp_path / "changes.yaml")]) == 1
    assert message in capsys.readouterr().err


def test_prices_can_be_changed_and_systems_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "changes.yaml").write_text(
        "systems: {gpt-4o: {price: {tokens_in: 9.0}}, mine: {provider: server, model: mine}}\nproviders: {server: {url: 'http://h/v1'}}"
    )
    assert main(["systems", "--json", "--prices", str(tmp_path / "changes.yaml")]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["gpt-4o"]["price"] == "9 / 10 (2026-05-01)" and rows["mine"]["missing"] == []


@pytest.mark.parametrize(
    "system, zero, one",
    [
        (
            "gpt-4o",
            "<image> Are there any defects in the query image? Please answer by yes or no.",
            "Following is 1 image of normal sample",
        ),
        (
            "anomaly-ov-7b",
            "<image> Are there any defects for the object in the image? Please reply with 'Yes' or 'No'.",
            "Following is 1 image",
        ),
        (
            "anomaly-gpt-7b",
            "This is a photo of a object for anomaly detection, which should be round",
            "Following is 1 image of normal sample",
        ),
        (
            "anomaly-r1-3b",
            "First output the thinking process in <think> </think> tags",
            "First output the thinking process in <think> </think> tags",
        ),
        ("iad-r1-qwen2.5-vl-3b", "<image> Are there any defects in the query image?", "Following is 1 image of normal sample"),
    ],
)
def test_each_system_is_asked_in_its_own_words(samples: list[Sample], system: str, zero: str, one: str) -> None:
    alone, shown = Exam(catalogue(), system, samples[:2], 1).chats()  # the first sample has no reference
    assert prompt_text(alone).startswith(zero) and images_of(alone) == [samples[0].images[-1]]
    assert prompt_text(shown).startswith(one) and images_of(shown) == [samples[1].references[0], samples[1].images[-1]]
    assert prompt_text(shown).count("<image>") == 2 and "{" not in prompt_text(shown) + prompt_text(alone)


PROVIDERS = [
    ("gpt-4o", "openai", {"OPENAI_API_KEY": "sk-secret"}, "OPENAI_BASE_URL"),
    ("qwen-vl-max", "openai", {"DASHSCOPE_API_KEY": "sk-secret"}, "DASHSCOPE_BASE_URL"),
    ("internvl-2.5-4b", "openai", {}, "IADR1_ENGINE_URL"),
    ("claude-sonnet-5-5", "anthropic", {"ANTHROPIC_API_KEY": "sk-secret"}, "ANTHROPIC_BASE_URL"),
    (
        "claude-sonnet-5-5-bedrock",
        "bedrock",
        {
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "sk-secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    ),
]


@pytest.mark.parametrize("system, protocol, keys, url", PROVIDERS, ids=[row[0] for row in PROVIDERS])
def test_a_remote_system_comes_into_the_report(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    system: str, protocol: str, keys: dict[str, str], url: str,
) -> None:  # fmt: skip
    with Provider(protocol, faults=("429", "500", "refusal"), some=4).serving() as server:
        for name, value in {**keys, url: server.url}.items():
            monkeypatch.setenv(name, value)
        assert evaluated(tmp_path, "--budget", "1", system=system) == 0
        assert evaluated(tmp_path, "--budget", "1", system=system) == 0  # all is kept: nothing is asked or paid
        assert len(server.billed) == 8 and set(server.billed.values()) == {1}
        (model,) = {body["model"] for body in server.bodies} if protocol != "bedrock" else {catalogue().system(system).model}
    assert model == catalogue().system(system).model
    found = read_predictions(tmp_path / "out" / f"{system}-0.jsonl")
    assert [prediction.sample_id for prediction in found] == [sample.id for sample in samples]
    assert [prediction.verdict.anomalous for prediction in found] == [None, True, False, True, None, True, False, True]
    assert [prediction.finish for prediction in found][:2] == ["refusal", "stop"] and found[1].tokens == TOKENS_OUT
    assert (found[1].p_yes is not None) == (protocol == "openai")
    out, err = capfd.readouterr()
    assert "8 questions to ask, 0 answered before" in out and "0 questions to ask, 8 answered before" in out
    assert "2 of them refusals, which count as unreadable" in out and f"{system}: 8 of 8 answered" in err
    assert "sk-secret" not in out + err
    assert main(["report", str(tmp_path / "out" / f"{system}-0.jsonl")]) == 0
    assert system in capfd.readouterr().out


def test_options_reach_each_provider_in_its_own_words() -> None:
    found = catalogue()

    def options(name: str) -> Any:
        made: Any = client(found, found.system(name), {}, pace=None, concurrency=1, timeout=1.0)  # type: ignore[arg-type]
        return made.options

    assert options("gpt-4o") == {"max_tokens": 600, "temperature": 0.0, "logprobs": True, "top_logprobs": 20}
    assert options("claude-sonnet-5-5") == {"max_tokens": 600, "thinking": {"type": "between_tools"}}
    assert options("claude-sonnet-4-bedrock") == {"inferenceConfig": {"maxTokens": 600, "temperature": 0.0}}
    thinking = {"additionalModelRequestFields": {"thinking": {"type": "between_tools"}}}
    assert options("claude-sonnet-5-5-bedrock") == {"inferenceConfig": {"maxTokens": 600}, **thinking}


def test_an_estimate_asks_nothing_and_needs_no_key(tmp_path: Path, samples: list[Sample], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluated(tmp_path, "--estimate") == 0
    # 8 times an image of one tile (255 tokens) and 80 letters; 5 tokens out
    assert "8 questions to ask, 0 answered before; about 2192 tokens in and 40 out: 0.01 USD, at most 0.05" in capsys.readouterr().out
    assert evaluated(tmp_path, "--estimate", "--price", "1000", "0") == 0
    assert ": 2.19 USD, at most 2.19, at 1000 and 0 a million" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        ((), "gpt-4o costs money: give --budget, in USD."),
        (("--budget", "0.001"), "about 0.01 USD on top of 0.00 is more than the budget of 0.00. Raise --budget"),
        (("--budget", "1"), "gpt-4o cannot be asked: $OPENAI_API_KEY."),
        (("--budget", "1", "--price", "-1", "1"), "a price is 0 or more"),
    ],
)
def test_nothing_is_asked_without_money_or_key(
    tmp_path: Path, samples: list[Sample], capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert evaluated(tmp_path, *options) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_budget_is_kept_across_runs_and_a_larger_one_goes_on(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    price = ("--price", "1000", "0", "--concurrency", "1")  # the estimate is 274 tokens each, the provider counts 400
    with Provider("openai").serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert evaluated(tmp_path, *price, "--budget", "2.3") == 1
        assert "What was answered is kept: run the same command with a larger budget" in capsys.readouterr().err
        assert len(server.billed) == 6 and 6 * TOKENS_IN * 1e-3 > 2.3 - 0.4  # one more could have been too much
        assert evaluated(tmp_path, *price, "--budget", "2.3") == 1
        assert "0.55 USD on top of 2.40 is more than the budget of 2.30" in capsys.readouterr().err
        assert evaluated(tmp_path, *price, "--budget", "9") == 0
        assert sum(server.billed.values()) == 8


def test_a_system_that_is_not_there_is_named_with_one_that_is(
    tmp_path: Path, samples: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(tmp_path, system="gpt-4") == 1
    assert "gpt-4 is no system of `iadr1 systems`; " in capsys.readouterr().err


ECHO = """
import json, sys
told = 0
for line in sys.stdin:
    request = json.loads(line)
    level = int(request["images"][-1].rsplit("/", 1)[1].removesuffix(".png"))
    print(json.dumps({"id": request["id"], "text": "Yes" if level % 2 else "No", "p_yes": level / 10}), flush=True)
    told += 1
    if sys.argv[1:] and told == int(sys.argv[1]):
        sys.exit(3)
"""


def test_an_external_program_comes_into_the_report_and_goes_on_after_a_crash(
    tmp_path: Path, samples: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.py").write_text(ECHO)
    command = f"{sys.executable} {tmp_path / 'model.py'}"
    assert evaluated(tmp_path, "--command", f"{command} 3", system="anomaly-ov-7b") == 1
    assert "ended with exit code 3 after 3 of 8 answers, which are kept" in capsys.readouterr().err
    assert evaluated(tmp_path, "--command", f"{command} 3", system="anomaly-ov-7b") == 1
    assert "ended with exit code 3 after 3 of 5 answers" in capsys.readouterr().err
    assert evaluated(tmp_path, "--command", f"{command} 3", system="anomaly-ov-7b") == 0
    found = read_predictions(tmp_path / "out" / "anomaly-ov-7b-0.jsonl")
    assert [prediction.verdict.anomalous for prediction in found] == [bool(level % 2) for level in range(8)]
    assert [prediction.p_yes for prediction in found] == [level / 10 for level in range(8)]


@pytest.mark.parametrize(
    "command, message",
    [
        ("no-such-program", "`no-such-program` cannot be run: No such file or directory"),
        ("echo hello", "the output of `echo hello`, line 1: not JSON"),
        ("echo '{}'", "line 1: id is missing"),
        ("""echo '{"id": "x", "text": "Yes"}'""", "line 1: id 'x' is that of no request"),
        ("true", "8 of 8 requests have no answer"),
    ],
)
def test_an_external_program_that_breaks_the_contract_is_named(
    tmp_path: Path, samples: list[Sample], capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    assert evaluated(tmp_path, "--command", command, system="anomaly-gpt-7b") == 1
    assert message in capsys.readouterr().err


def test_answers_that_were_written_elsewhere_come_into_the_report(
    tmp_path: Path, samples: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    requests, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    assert evaluated(tmp_path, "--requests", str(requests), system="anomaly-gpt-7b") == 0
    asked = [json.loads(line) for line in requests.read_text().splitlines()]
    for row in asked:
        jsonschema.validate(row, SCHEMAS["request"])
    answers.write_text("".join(json.dumps({"id": row["id"], "text": "No."}) + "\n" for row in reversed(asked)))
    assert evaluated(tmp_path, "--answers", str(answers), system="anomaly-gpt-7b") == 0
    found = read_predictions(tmp_path / "out" / "anomaly-gpt-7b-0.jsonl")
    assert [prediction.sample_id for prediction in found] == [sample.id for sample in samples]
    assert {prediction.verdict.anomalous for prediction in found} == {False} and found[0].model == "anomaly-gpt-7b"


@pytest.mark.parametrize(
    "lines, message",
    [
        (
            ['{"id": "d/bolt/0", "text": "Yes"}', '{"id": "d/bolt/0", "text": "No"}'],
            "answers.jsonl:2: id 'd/bolt/0' is answered a second time",
        ),
        (['{"id": "d/bolt/0", "text": "Yes"}'], "answers.jsonl: 7 of 8 requests have no answer: d/bolt/1, d/bolt/2"),
        (['{"id": "d/bolt/0", "text": 7}'], "answers.jsonl:1: text is a text; found '7'"),
        (['{"id": "d/bolt/0", "text": "", "p_yes": 1.5}'], "answers.jsonl:1: p_yes is a probability, 0 to 1, or null; found '1.5'"),
        (['{"id": "d/bolt/0", "text": "", "pyes": 1}'], "answers.jsonl:1: pyes is no field of an answer; known are id, text"),
        (["[]"], "answers.jsonl:1: an answer is an object with id and text; found list"),
    ],
)
def test_a_bad_answer_line_is_named_with_file_line_and_field(
    tmp_path: Path, samples: list[Sample], capsys: pytest.CaptureFixture[str], lines: list[str], message: str
) -> None:
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))
    assert evaluated(tmp_path, "--answers", str(tmp_path / "answers.jsonl"), system="anomaly-gpt-7b") == 1
    assert message in capsys.readouterr().err


ANYTHING = st.sampled_from([None, True, False, 0, 1, -1, 7, 0.5, 1.0, 1.5, -0.1, 1e300, "", "a", "Yes", "0.5", [], ["a"], {}, {"id": "a"}])
WORDS = st.text('aé\n"<\u2028 ', min_size=1, max_size=6)
NAMES = st.sampled_from(["id", "text", "truncated", "tokens", "p_yes", "other"])


@given(st.sampled_from([{}, {"id": "a", "text": "Yes"}]), st.dictionaries(NAMES, ANYTHING, max_size=3))
def test_a_line_is_read_exactly_where_the_published_schema_allows_it(begun: dict[str, Any], more: dict[str, Any]) -> None:
    row = begun | more
    # JSON Schema takes 1.0 for an integer, as JSON has no other; the reader wants what JSON writers call one.
    strict = not isinstance(row.get("tokens"), float)
    allowed = jsonschema.Draft202012Validator(SCHEMAS["answer"]).is_valid(row) and strict
    try:
        name, reply = read_answer(json.dumps(row), source="f:1")
    except ReportError as error:
        assert not allowed and str(error).startswith("f:1: ")
        return
    assert allowed and (name, reply.text) == (row["id"], row["text"]) and isinstance(reply, Reply)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3), WORDS)
def test_a_request_line_has_the_published_form(name: str, images: list[str], text: str) -> None:
    content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": text}]
    line = request_line(name, [{"role": "user", "content": content}])
    jsonschema.validate(json.loads(line), SCHEMAS["request"])
    assert "\n" not in line and json.loads(line)["images"] == images


def test_a_checkpoint_that_is_not_named_or_not_there_is_told(
    tmp_path: Path, samples: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(tmp_path, system="anomaly-r1-3b") == 1
    assert "anomaly-r1-3b: --checkpoint is missing. `iadr1 systems` tells where from." in capsys.readouterr().err
    assert evaluated(tmp_path, "--checkpoint", str(tmp_path / "none"), system="anomaly-r1-3b") == 1
    assert f"no folder {tmp_path / 'none'}" in capsys.readouterr().err


def test_a_checkpoint_comes_into_the_report_and_is_not_asked_again(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Provider("openai", models=("small",)).serving() as server:
        monkeypatch.setenv("IADR1_ENGINE_URL", server.url)
        options = ("--checkpoint", str(ROOT / "backbones" / "small"), "--engine", "server")
        assert evaluated(tmp_path, *options, system="anomaly-r1-3b") == 0
        assert evaluated(tmp_path, *options, system="anomaly-r1-3b") == 0
        assert len(server.bodies) == 8 and server.bodies[0]["max_tokens"] == 512
        assert server.bodies[0]["messages"][0]["content"][0]["text"].startswith("First output the thinking process")
    found = read_predictions(tmp_path / "out" / "anomaly-r1-3b-0.jsonl")
    assert [prediction.verdict.anomalous for prediction in found] == [bool(level % 2) for level in range(8)]
