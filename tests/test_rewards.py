"""The four rewards, the three presets and the adapters."""

import pickle
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iadr1.adapters import easyr1_scores, verl_score
from iadr1.defect_types import taxonomy
from iadr1.errors import DatasetError, ParamsError
from iadr1.expert_ad import COMPARISON, DECISION, EVALUATION, IDENTIFICATION, OPENINGS, SEEN, UNSEEN
from iadr1.locations import words
from iadr1.prompts import target
from iadr1.rewards import PRESETS, TrlReward, sample_of_solution, score, scores, trl_rewards
from iadr1.samples import Sample

NORMAL = Sample("n", "mvtec", "tile", ("n.png",), False)
SCRATCH = Sample("s", "mvtec", "tile", ("s.png",), True, "top left", "scratch")


def tagged(answer, location="top left", kind="scratch", think="The grain differs."):
    return f"<think>{think}</think><location>{location}</location><type>{kind}</type><answer>{answer}</answer>"


@pytest.mark.parametrize("preset, most", [("paper", 4.0), ("released", 3.0), ("strict", 4.0)])
def test_gold_answers_score_full_marks(preset, most):
    assert score(tagged("Yes"), SCRATCH, preset=preset).total == most
    assert score("<think>Even grain.</think><answer>No</answer>", NORMAL, preset=preset).total == 2.0


def test_location_and_type_of_a_normal_image_are_none():
    found = score(tagged("Yes"), NORMAL, preset="paper")
    assert (found.location, found.type, found.total) == (None, None, 0.0)


def test_a_wrong_answer_earns_its_honest_form_only_under_strict():
    text = "<think>Even grain.</think><answer>No</answer>"
    assert score(text, SCRATCH, preset="strict")[:5] == (1.0, 0.0, 0.0, 0.0, 1.0)
    assert score(text, SCRATCH, preset="paper").total == 0.0


def test_the_released_code_pays_location_and_type_of_a_no():
    found = score(tagged("No"), SCRATCH, preset="released")
    assert (found.consistency, found.accuracy, found.location, found.type, found.total) == (1.0, 0.0, 1.0, 1.0, 2.0)


def test_solutions_become_samples():
    found = sample_of_solution("<location>top left</location><type>scratch</type><answer>Yes</answer>")
    assert (found.anomalous, found.location, found.type) == (True, "top left", "scratch")
    assert sample_of_solution("<answer>No</answer>").anomalous is False


def test_trl_rewards_carry_names_weights_and_survive_pickling():
    functions, weights = trl_rewards("paper", {"consistency": 1.0, "accuracy": 1.0, "location": 0.5, "type": 0.5}, 3)
    assert [function.__name__ for function in functions] == ["consistency", "accuracy", "location", "type"]
    assert weights == [1.0, 1.0, 0.5, 0.5]
    again = pickle.loads(pickle.dumps(functions[2]))
    completions = [
        [{"role": "assistant", "content": tagged("Yes")}],
        [{"role": "assistant", "content": [{"type": "text", "text": "?"}]}],
        tagged("Yes"),
    ]
    rows = [SCRATCH.to_json(), SCRATCH.to_json(), NORMAL.to_json()]
    assert again(prompts=["", "", ""], completions=completions, sample=rows, trainer_state=None) == [1.0, 0.0, None]


def test_an_unknown_reward_is_refused_by_name():
    with pytest.raises(ParamsError, match="'lenght' is not a reward; choose from consistency, accuracy, location, type"):
        TrlReward("lenght", "paper")
    with pytest.raises(ParamsError, match="choose one of paper, released, strict"):
        TrlReward("type", "papers")


def test_a_weight_of_no_reward_is_refused():
    with pytest.raises(ParamsError, match="'acuracy' is not a reward; choose from consistency, accuracy, location, type"):
        score(tagged("Yes"), SCRATCH, weights={"acuracy": 1.0})


@pytest.mark.parametrize("text, status", [(tagged("Yes"), "ok"), ("x" + tagged("Yes"), "malformed"), (tagged("maybe"), "unreadable")])
def test_the_status_is_that_of_the_one_grammar_under_every_preset(text, status):
    assert {score(text, SCRATCH, preset=preset).status for preset in PRESETS} == {status}


def test_presets_have_the_four_rewards():
    assert all(list(preset.rewards) == ["consistency", "accuracy", "location", "type"] for preset in PRESETS.values())


PLACES = st.sampled_from(["top left", "center", "bottom right", "upper right corner", "everywhere", "unknown", "left edge"])
KINDS = st.sampled_from(
    ["scratch", "hole", "stain", "dent", "crack", "fracture", "scratches", "defect", "no scratch", "scratch, hole", "."]
)
TRUE_PLACES = st.sampled_from(["top left", "center", "bottom right", "top left, top center"])
TRUE_KINDS = st.sampled_from(["scratch", "hole", "stain", "crack"])
MOST = {"consistency": 1.0, "accuracy": 1.0, "location": 1.0, "type": 1.0}


@given(
    st.text(max_size=200) | st.builds(tagged, st.sampled_from(["Yes", "No", "maybe"]), PLACES, KINDS),
    st.sampled_from(list(PRESETS)),
    st.integers(1, 5),
)
def test_rewards_of_any_text_are_bounded_and_the_total_is_their_weighted_sum(text, preset, grid):
    for sample in (NORMAL, SCRATCH):
        found = score(text, sample, preset=preset, grid=grid)
        for name, most in MOST.items():
            value = getattr(found, name)
            assert value is None or 0.0 <= value <= most
        assert found.total == pytest.approx(sum(PRESETS[preset].weights[name] * (getattr(found, name) or 0.0) for name in MOST))
        assert (found.location is None) == (found.type is None) == (not sample.anomalous)


@given(PLACES, KINDS, TRUE_PLACES, TRUE_KINDS, st.sampled_from(list(PRESETS)))
def test_a_more_correct_completion_never_earns_less(place, kind, true_place, true_kind, preset):
    sample = Sample("s", "made", "plate", ("s.png",), True, true_place, true_kind)

    def total(answer="Yes", location=place, named=kind):
        return score(tagged(answer, location, named), sample, preset=preset).total

    assert total("No") <= total("Yes")
    assert total() <= total(location=true_place) <= total(location=true_place, named=true_kind)
    assert total() <= total(named=true_kind)


@given(
    st.builds(tagged, st.sampled_from(["Yes", "No", "maybe"]), PLACES, KINDS),
    st.sampled_from(list(PRESETS)),
    TRUE_PLACES,
    st.none() | TRUE_KINDS,
)
def test_a_total_is_made_of_the_four_functions(text, preset, place, kind):
    chosen, sample = PRESETS[preset], Sample("s", "made", "plate", ("s.png",), True, place, kind)
    assert score(text, sample, preset=preset)[:4] == tuple(reward(chosen.read(text), sample, 3) for reward in chosen.rewards.values())


@pytest.mark.parametrize("kind", sorted({kind.fine for kind in taxonomy().phrases.values()} | set(taxonomy().coarse)))
def test_every_type_and_place_that_an_annotation_can_hold_is_paid_in_full(kind):
    grid = [(row, column) for row in range(3) for column in range(3)]
    for size in (1, 2, 4, 5, 8, 9):
        sample = Sample("s", "made", "plate", ("s.png",), True, words(frozenset(grid[:size])), kind, "A line crosses the grain.")
        assert [score(target(sample), sample, preset=preset).total for preset in ("paper", "released", "strict")] == [4.0, 3.0, 4.0]


@given(st.lists(st.builds(tagged, st.sampled_from(["Yes", "No", "maybe"]), PLACES, KINDS), max_size=6), st.sampled_from(list(PRESETS)))
def test_a_batch_scores_as_its_members_do(texts, preset):
    samples = [SCRATCH if index % 2 else NORMAL for index in range(len(texts))]
    assert scores(texts, samples, preset=preset) == [
        score(text, sample, preset=preset) for text, sample in zip(texts, samples, strict=True)
    ]


def test_ones_own_reward_is_a_function_in_a_file(tmp_path):
    file = tmp_path / "brevity.py"
    file.write_text(
        "def brevity(verdict, sample, grid):\n    words = len((verdict.reasoning or '').split())\n    return 1.0 if 0 < words <= 80 else 0.0\n"
    )
    (reward,), weights = trl_rewards("paper", {f"{file}:brevity": 0.2}, 3)
    assert (reward.__name__, weights) == ("brevity", [0.2])
    assert pickle.loads(pickle.dumps(reward))([""], [tagged("Yes")], [SCRATCH.to_json()]) == [1.0]
    with pytest.raises(ParamsError, match="has no function length"):
        TrlReward(f"{file}:length", "paper")
    with pytest.raises(ParamsError, match=r"no file none\.py"):
        TrlReward("none.py:length", "paper")


def test_other_trainers_get_numbers_under_their_own_keys():
    solution = "<location>top left</location><type>scratch</type><answer>Yes</answer>"
    assert verl_score("mvtec", tagged("Yes"), solution) == {"score": 4.0, "consistency": 1.0, "accuracy": 1.0, "location": 1.0, "type": 1.0}
    found = easyr1_scores(
        [{"response": "<think>Even.</think><answer>No</answer>", "response_length": 9, "ground_truth": NORMAL.to_json()}], preset="strict"
    )
    assert found == [{"overall": 2.0, "consistency": 1.0, "accuracy": 1.0, "location": 0.0, "type": 0.0}]


def test_a_solution_without_a_label_is_refused():
    with pytest.raises(DatasetError, match="row 3: a solution holds <answer>Yes</answer> or <answer>No</answer>; found 'maybe'"):
        sample_of_solution("maybe", id="row 3")


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("anomalous", [True, False])
def test_every_wording_of_the_made_chains_is_paid_in_full(preset, anomalous):
    endings = product(COMPARISON[anomalous], IDENTIFICATION[anomalous], EVALUATION[anomalous], DECISION[anomalous])
    place, kind = ("top left, top center", "score mark") if anomalous else (None, None)
    opening = SEEN[0].format(size="small", tone="dark", shape="round", place=place) if anomalous else UNSEEN[3]
    samples = [
        Sample(
            "m",
            "made",
            "plate",
            ("m.png",),
            anomalous,
            place,
            kind,
            " ".join([OPENINGS[0], opening, *ending]).format(category="plate", type=kind),
        )
        for ending in endings
    ]
    most = sum(PRESETS[preset].weights[name] for name in (MOST if anomalous else ("consistency", "accuracy")))
    assert {found.total for found in scores(map(target, samples), samples, preset=preset)} == {most}
