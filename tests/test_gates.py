"""The gates: one table of cases for each, the decision that follows from them, and the command with its exit codes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from iadr1.cli import main
from iadr1.decision import NOT_APPLICABLE, PASSED, REFUSED, UNDECIDED, Decision, Finding, of_findings
from iadr1.gates import GATES, LINEAGE, Case, Evaluation, decide
from iadr1.params import ClassFloor, Compared, Gates, load
from tests.evaluated import DATASETS, folder, predictions

ROOT = Path(__file__).parents[1]
GOOD = predictions(skill=0.8)
FACTS = {**dict.fromkeys(LINEAGE, "abc"), "validation": "passed, 0 errors, 2 warnings"}


def case(answers=GOOD, live=None, facts=None):
    return Case(Evaluation("new", answers, facts), DATASETS, live and Evaluation("old", live))


def told(**changes):
    return [replace(one, **changes) for one in GOOD]


YES = {name: next(one.text for one in GOOD if one.anomalous is name and "Yes" in one.text) for name in (True,)}[True]
ALWAYS_YES = told(text=YES)
MUTE = [replace(one, text="?") if number < 4 else one for number, one in enumerate(GOOD)]
WRONG_PLACE = [replace(one, text=one.text.replace("top left", "center")) for one in GOOD]
ONE_SET = [one for one in GOOD if one.dataset == "visa"]
PASS, NO, UNKNOWN, NA = PASSED, REFUSED, UNDECIDED, NOT_APPLICABLE


@pytest.mark.parametrize(
    "name, limit, given, verdict, reason",
    [
        ("mean_balanced_accuracy", 85.0, case(), PASS, "mean balanced accuracy of 2 data sets is 87.5 %, at least 85"),
        ("mean_balanced_accuracy", 95.0, case(), NO, "is 87.5 %, not at least 95"),
        ("mean_balanced_accuracy", 85.0, case(ONE_SET), UNKNOWN, "but nothing is known of mvtec"),
        ("mean_balanced_accuracy", 99.0, case(ONE_SET), NO, "not at least 99"),  # a data set more could not mend it
        ("mean_balanced_accuracy", 85.0, case([]), UNKNOWN, "the report does not hold it"),
        ("dataset_balanced_accuracy", 86.0, case(), PASS, "balanced accuracy on"),
        ("dataset_balanced_accuracy", 93.0, case(), NO, "not at least 93"),
        ("dataset_balanced_accuracy", 1.0, case([one for one in GOOD if one.anomalous]), UNKNOWN, "on mvtec: the report does not hold it"),
        ("class_balanced_accuracy", ClassFloor(floor=80.0, images=20), case(), PASS, "/class"),
        ("class_balanced_accuracy", ClassFloor(floor=99.0, images=20), case(), NO, "/class"),
        ("class_balanced_accuracy", ClassFloor(floor=1.0, images=51), case(), UNKNOWN, "no class has 51 normal and 51 anomalous images"),
        ("missed_defects", 20.0, case(), PASS, "missed defects on"),
        ("missed_defects", 3.0, case(), NO, "not at most 3"),
        ("missed_defects", 0.0, case(ALWAYS_YES), PASS, "is 0.0 %"),
        ("unreadable_answers", 2.0, case(MUTE), PASS, "unreadable answers on mvtec is 2.0 %"),
        ("unreadable_answers", 1.9, case(MUTE), NO, "not at most 1.9"),
        ("same_answer", 80.0, case(), PASS, "one and the same answer on"),
        ("same_answer", 80.0, case(ALWAYS_YES), NO, "is 100.0 %"),
        # On nine anomalous images of ten a model that is always right says yes nine times of ten.
        (
            "same_answer",
            60.0,
            case([one for one in predictions(skill=1.0) if one.anomalous or one.sample_id.endswith("1")]),
            PASS,
            "50.0 %",
        ),
        ("location_accuracy", 90.0, case(), PASS, "right locations of"),
        ("location_accuracy", 1.0, case(WRONG_PLACE), NO, "is 0.0 %"),
        ("location_accuracy", 1.0, case(told(location=None)), NA, "no image has a location annotated"),
        ("location_accuracy", 1.0, case(told(text="<think>x</think><answer>No</answer>")), UNKNOWN, "no defect with a location"),
        ("type_accuracy", 90.0, case(), PASS, "right types of"),
        ("type_accuracy", 1.0, case(told(type=None)), NA, "no image has a type annotated"),
        ("seconds", 1.0, case(), UNKNOWN, "400 answers do not tell their seconds; set evaluate.latency: true"),
        ("seconds", 1.0, case(told(seconds=0.5)), PASS, "seconds for 95 of 100 answers is 0.5 s"),
        ("seconds", 0.4, case(told(seconds=0.5)), NO, "not at most 0.4"),
        ("data_validated", True, case(facts=FACTS), PASS, "passed, 0 errors"),
        ("data_validated", True, case(facts={**FACTS, "validation": "failed, 3 errors"}), NO, "failed, 3 errors"),
        ("data_validated", True, case(facts={}), UNKNOWN, "the version does not tell it (no tag validation)"),
        ("data_validated", True, case(), NA, "predictions alone do not tell"),
        ("data_validated", False, case(facts={}), NA, "not asked"),
        ("lineage_complete", True, case(facts=FACTS), PASS, "commit: abc"),
        ("lineage_complete", True, case(facts={**FACTS, "git_commit": "none"}), NO, "unknown: git_commit"),
        ("lineage_complete", True, case(facts={}), NO, "unknown: git_commit, params_sha256"),
        ("no_regression", Compared(points=3.0, images=100), case(), NA, "nothing is live yet"),
        ("no_regression", Compared(points=3.0, images=100), case(live=GOOD), PASS, "+0.0 points [+0.0, +0.0] against old on 400"),
        ("no_regression", Compared(points=3.0, images=100), case(predictions(skill=0.5), GOOD), NO, "provably worse: mvtec"),
        ("no_regression", Compared(points=3.0, images=100), case(predictions(skill=0.9), GOOD), PASS, "down to -3 is tolerated"),
        (
            "no_regression",
            Compared(points=3.0, images=401),
            case(live=GOOD),
            UNKNOWN,
            "400 images were answered by both; at least 401",
        ),
        ("no_regression", Compared(points=3.0, images=2), case(live=told(dataset="x")), UNKNOWN, "0 images were answered by both"),
        (
            "no_regression",
            Compared(points=3.0, images=2),
            case(live=told(visibility=0.5)),
            UNKNOWN,
            "other images under the same id",
        ),
        ("better_than_live", Compared(points=0.0, images=100), case(live=GOOD), NO, "not certainly more than 0 points better"),
        ("better_than_live", Compared(points=0.0, images=100), case(predictions(skill=0.95), GOOD), PASS, "certainly more than 0"),
        ("better_than_live", Compared(points=20.0, images=100), case(predictions(skill=0.95), GOOD), NO, "not certainly more than 20"),
        (
            "better_than_live",
            Compared(points=0.0, images=100),
            case(predictions(skill=0.81), GOOD),
            NO,
            "not certainly",
        ),  # too little to be sure
    ],
)
def test_every_gate_says_what_it_found(name, limit, given, verdict, reason):
    found = GATES[name](given, limit)
    assert (found.verdict, reason in found.reason) == (verdict, True), found


def test_there_is_a_gate_for_every_limit_that_params_can_state():
    assert list(Gates.model_fields) == list(GATES)


def test_a_class_with_few_images_is_told_and_not_judged():
    few = [replace(one, category="rare") if number < 20 else one for number, one in enumerate(GOOD)]
    assert (
        "(1 classes have too few images to judge)" in GATES["class_balanced_accuracy"](case(few), ClassFloor(floor=1.0, images=20)).reason
    )


def test_the_seed_of_a_training_does_not_make_other_images():
    found = GATES["no_regression"](case(predictions(skill=0.8, seed=0), told(seed=7)), Compared(points=1.0, images=100))
    assert found.verdict == PASSED


@given(st.lists(st.sampled_from([PASSED, REFUSED, UNDECIDED, NOT_APPLICABLE])))
def test_a_decision_passes_only_when_something_passed_and_nothing_speaks_against_it(verdicts):
    found = [Finding(1.0, verdict=verdict, name=f"gate{number}") for number, verdict in enumerate(verdicts)]
    decision = of_findings(found, to="staging", candidate={"name": "a", "images": 1}, live=None)
    assert (decision.exit_code == 0) == (PASSED in verdicts and not {REFUSED, UNDECIDED} & set(verdicts))
    assert (decision.exit_code == 3) == (REFUSED in verdicts)
    assert Decision.from_json(decision.to_json()).markdown() == decision.markdown()


def test_staging_does_not_ask_whether_it_is_better():
    limits = {"mean_balanced_accuracy": 50.0, "better_than_live": Compared(points=0.0, images=100)}
    assert decide(case(live=GOOD), limits, to="staging").verdict == PASSED
    assert decide(case(live=GOOD), limits, to="production").verdict == REFUSED


def test_where_no_gate_applies_nothing_passes_and_the_reason_is_told():
    decision = decide(case(), {}, to="staging")
    assert (decision.verdict, decision.summary) == (UNDECIDED, "no gate applies; set one in params.yaml: register.gates")


def test_a_limit_of_null_is_not_asked():
    assert [gate.name for gate in decide(case(), {"seconds": None, "same_answer": 80.0}, to="production").gates] == ["same_answer"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with parameters for the made data sets, and what six models answered."""
    home = tmp_path_factory.mktemp("project")
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["evaluate"]["datasets"] = {name: tree["evaluate"]["datasets"][name] for name in DATASETS}
    (home / "params.yaml").write_text(yaml.safe_dump(tree))
    models = {"live": {"skill": 0.8}, "worse": {"skill": 0.6}, "better": {"skill": 0.9}, "yes": {"skill": 0.0, "yes": 1.0}}
    for name, told in models.items():
        folder(home / name, predictions(**told))
    folder(home / "tie", [*predictions(skill=0.2, model="base"), *predictions(skill=0.8)])
    folder(home / "part", predictions(skill=0.9, datasets=["visa"]))
    return home


# The first line of the decision, and the exit code, of staging and of production.
@pytest.mark.parametrize(
    "candidate, live, staging, production",
    [
        ("worse", "live", 3, 3),
        ("tie", "live", 0, 3),
        ("better", "live", 0, 0),
        ("better", "none", 0, 0),
        ("yes", "none", 3, 3),
        ("part", "live", 1, 1),  # a data set was not answered: never a pass
    ],
)
def test_a_worse_candidate_is_refused_a_better_one_passes_and_a_tie_is_no_reason_to_promote(
    project, capsys, candidate, live, staging, production
):
    report = ["gate", "--candidate", str(project / candidate), "--live", str(project / live) if live != "none" else live]
    for to, code in (("staging", staging), ("production", production)):
        output = project / "out" / candidate / to
        assert main([*report, "--to", to, "--params", str(project / "params.yaml"), "--output", str(output)]) == code
        shown = capsys.readouterr().out
        assert shown == (output / "decision.md").read_text()
        decision = json.loads((output / "decision.json").read_text())
        assert decision["verdict"] == {0: "passed", 3: "refused", 1: "undecided"}[code]
        assert all({"name", "limit", "value", "interval", "verdict", "reason"} == set(gate) for gate in decision["gates"])


def test_the_document_says_why_a_worse_candidate_is_refused(project, capsys):
    main(["gate", "--candidate", str(project / "worse"), "--live", str(project / "live"), "--params", str(project / "params.yaml")])
    text = capsys.readouterr().out
    assert text.startswith(f"# {project / 'worse'} to staging: refused")
    assert "provably worse: mvtec" in text and "| no_regression" in text and "down to -3 is tolerated" in text


def test_one_file_is_a_report_too_and_the_same_case_gives_the_same_document(project, capsys, tmp_path):
    lines = [line for name in DATASETS for line in (project / "better" / f"{name}-0.jsonl").read_text().splitlines(keepends=True)]
    (tmp_path / "evaluation.jsonl").write_text("".join(lines))
    command = ["gate", "--candidate", str(tmp_path / "evaluation.jsonl"), "--live", str(project / "live"), "--params"]
    shown = {(main([*command, str(project / "params.yaml")]), capsys.readouterr().out) for _ in range(2)}
    assert len(shown) == 1 and next(iter(shown))[0] == 0


@pytest.mark.parametrize(
    "candidate, more, message",
    [
        ("nothing", [], "nothing: no such file"),
        ("out", [], r"out: no predictions with 0 reference images (*-0.jsonl). Run `dvc repro evaluate`"),
        ("tie", ["--model", "pa_sft"], "no predictions of pa_sft; known are: base, sc_grpo. Name one with --model."),
        ("seeds.jsonl", [], "predictions of 2 trainings (seeds 0, 1). Give those of one."),
    ],
)
def test_what_is_no_report_is_an_error_and_never_a_pass(project, capsys, candidate, more, message):
    (project / "out").mkdir(exist_ok=True)
    rows = [one.to_json() for one in (*predictions(skill=1.0, images=2), *told(seed=1)[:1])]
    (project / "seeds.jsonl").write_text("\n".join(rows) + "\n")
    command = ["gate", "--candidate", str(project / candidate), "--live", "none", "--params", str(project / "params.yaml"), *more]
    assert main(command) == 1
    assert message in capsys.readouterr().err


def test_the_gate_needs_no_torch_and_no_mlflow(project):
    heavy = "sorted({'torch', 'mlflow', 'transformers', 'pandas'} & set(sys.modules)) or code"
    command = ["gate", "--candidate", str(project / "better"), "--live", str(project / "live"), "--params", str(project / "params.yaml")]
    program = f"import sys; from iadr1.cli import main; code = main({command!r}); sys.exit({heavy})"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_shipped_limits_can_be_read_and_ask_every_gate_but_latency():
    limits = dict(load(ROOT / "params.yaml").register.gates)
    assert [name for name, limit in limits.items() if limit is None] == ["seconds"]
