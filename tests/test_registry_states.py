"""What a version may become, as one state machine, and a history from which the state follows whoever reads it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from iadr1.errors import ModelError
from iadr1.registry.history import Entry, History
from iadr1.registry.states import State, replayed

VERSIONS = st.integers(1, 5)
ACTIONS = st.sampled_from(["stage", "promote", "rollback", "archive"])


@pytest.mark.parametrize(
    "steps, state",
    [
        ([("stage", 1)], State(staging=1)),
        ([("stage", 1), ("stage", 2)], State(staging=2)),
        ([("stage", 1), ("promote", 1)], State(production=1)),
        ([("stage", 1), ("promote", 1), ("stage", 1)], State(production=1)),  # it is more than staging already
        ([("stage", 1), ("promote", 1), ("stage", 2), ("promote", 2)], State(production=2, previous=1, retired=frozenset({1}))),
        (
            [("stage", 1), ("promote", 1), ("stage", 2), ("promote", 2), ("rollback", 1)],
            State(production=1, retired=frozenset({2})),
        ),
        ([("stage", 1), ("archive", 1)], State(archived=frozenset({1}))),
        (
            [("stage", 1), ("promote", 1), ("stage", 2), ("promote", 2), ("archive", 1)],
            State(production=2, archived=frozenset({1})),
        ),
    ],
)
def test_steps_lead_to_a_state(steps, state):
    assert replayed(steps) == state


TWO = [("stage", 1), ("promote", 1), ("stage", 2), ("promote", 2)]


@pytest.mark.parametrize(
    "steps, wrong, message",
    [
        ([], ("promote", 1), r"version 1 is not in staging \(its stage is None\)\. Only staging becomes production"),
        ([("stage", 2)], ("promote", 1), r"version 1 is not in staging .*; version 2 is in staging"),
        ([("stage", 1), ("promote", 1)], ("archive", 1), r"version 1 is in production\. Promote another one or `iadr1 registry rollback`"),
        ([], ("rollback", 3), r"version 3 cannot be gone back to: .* Those that can be: none\."),
        (TWO, ("stage", 1), r"version 1 is archived .* Go back to it with `iadr1 registry rollback --to 1`"),
        ([*TWO, ("archive", 1)], ("rollback", 1), r"version 1 cannot be gone back to"),
        ([("archive", 1)], ("stage", 1), r"version 1 is archived .* Register the model anew"),
    ],
)
def test_a_step_that_is_not_allowed_says_what_is(steps, wrong, message):
    with pytest.raises(ModelError, match=message):
        replayed([*steps, wrong])


class Registry(RuleBasedStateMachine):
    """Any order of wishes; those that are not allowed change nothing."""

    def __init__(self):
        super().__init__()
        self.state, self.were_live = State(), set()

    @rule(action=ACTIONS, version=VERSIONS)
    def wish(self, action, version):
        before = self.state
        try:
            self.state = before.after(action, version)
        except ModelError:
            return
        if self.state.production is not None:
            self.were_live.add(self.state.production)
        assert self.state.after(action, version) == self.state, "a wish that is repeated changes nothing"
        assert before.production in (None, self.state.production) or before.stage(version) != "None", "only staging or the past goes live"

    @invariant()
    def every_version_has_one_stage(self):
        state = self.state
        places = [{state.staging} - {None}, {state.production} - {None}, state.retired, state.archived]
        assert sum(map(len, places)) == len(set().union(*places))

    @invariant()
    def what_was_live_is_never_lost(self):
        assert self.were_live <= {self.state.production} | self.state.retired | self.state.archived
        assert self.state.previous is None or self.state.previous in self.state.retired


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)


def entry(number, after, action="stage", version=1):
    return Entry(f"id{number}", action, version, after, "ada", "why", number=number)


def test_of_two_decided_at_once_the_first_counts_and_the_other_does_not():
    history = History.of("m", [entry(1, 0), entry(2, 1, version=2), entry(3, 1, version=3), entry(4, 2, "promote", 2)])
    assert [one.number for one in history.entries] == [1, 2, 4]
    assert history.state == State(production=2) and history.head == 4
    assert history.holds("id4") and not history.holds("id3")


def test_a_missing_entry_is_noticed():
    with pytest.raises(
        ModelError, match=r"the history of m is damaged: entry 3 follows entry 2, which is not there\. Bring back .* m\.history"
    ):
        History.of("m", [entry(1, 0), entry(3, 2)])


def test_an_entry_is_the_same_after_it_was_tags():
    one = Entry("id", "promote", 3, 7, "ada", "because", "Staging; staging 3", '{"verdict": "passed"}', number=8, when=1)
    assert Entry.of_tags(one.tags(), number=8, when=1) == one
    assert Entry.of_tags({"some": "tag"}, number=8, when=1) is None


@given(st.lists(st.tuples(ACTIONS, VERSIONS), max_size=12), st.integers(0, 2**32))
def test_writers_at_once_leave_one_order_that_every_reader_sees(wishes, seed):
    """Each writer decides on what it has read; the server appends in any order. Nothing that was not allowed happens, nothing that counted is lost."""
    drawn, server, seen = random.Random(seed), [], []
    waiting = [(f"w{number}", *wish) for number, wish in enumerate(wishes)]
    while waiting:
        # Some read the same list before any of them writes.
        readers = [waiting.pop() for _ in range(min(len(waiting), drawn.randint(1, 3)))]
        history = History.of("m", server)
        for identity, action, version in readers:
            try:
                history.state.after(action, version)
            except ModelError:
                continue
            if not history.state.already(action, version):
                server.append(Entry(identity, action, version, history.head, "ada", "why", number=len(server) + 1))
        now = History.of("m", server)
        assert list(now.entries[: len(seen)]) == seen, "what counted once counts for ever"
        assert len(now.entries) <= len(history.entries) + 1, "of those who read the same list one succeeds"
        seen = list(now.entries)
    shuffled = drawn.sample(server, len(server))
    assert History.of("m", shuffled).entries == tuple(seen)
