"""Where an answer begins, and which tokens it may begin with."""

import math

import pytest

from iadr1 import backbones
from iadr1.p_yes import Tokens, answer_position, answer_tokens, log_mass, p_yes
from tests.tiny import tiny_backbone


@pytest.fixture(scope="module")
def tokenizer():
    return backbones.load_processor(tiny_backbone(), max_pixels=None).tokenizer


@pytest.mark.parametrize(
    "text, rest",
    [
        ("Yes, there is.", "Yes, there is."),
        ("  No", "No"),
        ("<think>Is it? No.</think><location>top</location><type>dent</type><answer>Yes</answer>", "Yes</answer>"),
        ("<think>a</think><ANSWER>\n no", "no"),
        ("<answer>Yes</answer><answer>No</answer>", "No</answer>"),  # the last one counts
        ("<think>thought</think> No, it is fine.", "No, it is fine."),
        ("<think>It goes on", None),
        ("<think>a</think><location>top", None),
        ("<think>a</think>", None),
        ("<answer>", None),
        ("", None),
    ],
)
def test_the_answer_begins_after_its_tag_or_the_reasoning_or_at_once(tokenizer, text, rest):
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    at = answer_position(tokenizer.decode, tokens)
    assert (None if at is None else tokenizer.decode(tokens[at:]).strip()) == rest


def test_yes_and_no_begin_with_tokens_of_their_own(tokenizer):
    yes, no = answer_tokens(tokenizer)
    assert yes and no and not set(yes) & set(no)
    assert {tokenizer.decode([token]).strip().lower() for token in yes} <= {"y", "ye", "yes"}
    assert {tokenizer.decode([token]).strip().lower() for token in no} <= {"n", "no"}


class Words:
    """A tokenizer of whole words, some of which begin alike."""

    vocabulary = ("<answer>", " ", "yes", "Yes", "YES", "no", "No", "NO")

    def __call__(self, text, add_special_tokens):
        found = []
        while text:
            found.append(next(at for at, word in enumerate(self.vocabulary) if text.startswith(word)))
            text = text[len(self.vocabulary[found[-1]]) :]
        return {"input_ids": found}

    def decode(self, tokens):
        return "".join(self.vocabulary[token] for token in tokens)


def test_a_token_of_white_space_is_never_taken_for_an_answer():
    assert answer_tokens(Words()) == Tokens([2, 3, 4], [5, 6, 7])


def test_an_answer_without_a_word_has_its_choice_at_the_first_token(tokenizer):
    assert answer_position(lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True), [tokenizer.eos_token_id]) == 0


@pytest.mark.parametrize("yes, no, expected", [(0.2, 0.6, 0.25), (1.0, 0.0, 1.0), (0.0, 1e-30, 0.0), (1e-300, 3e-300, 0.25)])
def test_p_yes_is_its_share_of_what_yes_and_no_have(yes, no, expected):
    logarithms = [math.log(mass) if mass else -math.inf for mass in (yes, no)]
    assert p_yes(*logarithms) == pytest.approx(expected)
    assert log_mass([*logarithms, -math.inf]) == pytest.approx(math.log(yes + no))


def test_nothing_on_either_side_is_no_probability():
    assert p_yes(-math.inf, -math.inf) is None and log_mass([]) == -math.inf
