"""The four rewards, the three presets and the adapters."""

import pickle

import pytest

from iadr1.errors import ParamsError
from iadr1.rewards import PRESETS, TrlReward, sample_of_solution, score, trl_rewards
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


def test_presets_have_the_four_rewards():
    assert all(list(preset.rewards) == ["consistency", "accuracy", "location", "type"] for preset in PRESETS.values())
