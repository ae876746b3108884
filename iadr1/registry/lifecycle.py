"""What is done with registered versions: promote, roll back, archive, and repair what a power cut left half copied. Each may be repeated safely."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from iadr1.decision import PASSED, Decision
from iadr1.errors import ModelError
from iadr1.registry.history import Entry, History
from iadr1.registry.states import PRODUCTION, Action
from iadr1.registry.store import Store, Unanswered

# Takes a version and the live one (None: nothing is live) at the moment of the promotion.
Judge = Callable[[int, int | None], Decision]
Choice = Callable[[History], int]

ATTEMPTS = 200  # of one among many that change the registry at once; each attempt lets one of them through
UNANSWERED = 20  # of these: of a registry that is busy, or answers none of them
MOST_TURNS = 8  # that one waits, each as long as an attempt takes here, so that a slow registry is given more time


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a wish: the version, its stage now, whether anything was done, and the decision where one was taken."""

    version: int
    stage: str
    done: bool
    decision: Decision | None = None

    @property
    def refused(self) -> bool:
        """Whether a decision stood against it."""
        return self.decision is not None and self.decision.verdict != PASSED


def promote(store: Store, choice: Choice, *, to: str, who: str, why: str, judge: Judge, mirror: bool = False) -> Outcome:
    """Move a version to staging or to production, when the decision against what is live at that moment allows it."""
    action: Action = "promote" if to == PRODUCTION.lower() else "stage"
    return _carried_out(store, action, choice, who=who, why=why, judge=judge, mirror=mirror)


def rollback(store: Store, choice: Choice, *, who: str, why: str, mirror: bool = False) -> Outcome:
    """Put a version that was in production before back; its files are compared with their manifest, nothing else is asked."""
    return _carried_out(store, "rollback", choice, who=who, why=why, mirror=mirror)


def archive(store: Store, choice: Choice, *, who: str, why: str, mirror: bool = False) -> Outcome:
    """Put a version away for good; it need not be whole."""
    return _carried_out(store, "archive", choice, who=who, why=why, mirror=mirror)


def repair(store: Store, *, mirror: bool = False) -> History:
    """Make aliases, tags and stages a copy of the history, until it has not grown meanwhile."""
    while True:
        history = store.history()
        store.show(history.state, mirror=mirror)
        if store.history().head == history.head:
            return history


def number(version: int) -> Choice:
    """This version."""
    return lambda history: version


def staged(history: History) -> int:
    """The version in staging; the one that has just gone from there to production when nothing was done since, so that it may be asked twice."""
    if history.state.staging is not None:
        return history.state.staging
    last = history.entries[-1] if history.entries else None
    if last and last.action == "promote":
        return last.version
    raise ModelError(f"nothing is in staging of {history.name}. `iadr1 registry list` shows what there is; name a version.")


def previous(history: History) -> int:
    """The version that was in production before; the one that has just been gone back to when nothing was done since."""
    if history.state.previous is not None:
        return history.state.previous
    last = history.entries[-1] if history.entries else None
    if last and last.action == "rollback":
        return last.version
    known = ", ".join(map(str, sorted(history.state.retired))) or "none"
    raise ModelError(f"{history.name} has no previous version to go back to. Name one with --to; those that were in production: {known}.")


def _carried_out(
    store: Store, action: Action, choice: Choice, *, who: str, why: str, judge: Judge | None = None, mirror: bool = False
) -> Outcome:
    if not who.strip() or not why.strip():
        raise ModelError("who and why: an entry of the history names a person or a program, and a reason. Give --who NAME and --why TEXT.")
    identity, verified, unanswered = uuid4().hex, set[int](), 0
    decision: Decision | None = None
    for attempt in range(ATTEMPTS):
        began = time.monotonic()
        history = store.history()
        if history.holds(identity):
            done = next(entry for entry in history.entries if entry.id == identity)
            return _finished(store, done.version, done=True, decision=decision, mirror=mirror)
        version = store.version(choice(history)).number
        if history.state.already(action, version):
            return _finished(store, version, done=False, mirror=mirror)
        history.state.after(action, version)
        if action != "archive" and version not in verified:
            store.verify(version)
            verified.add(version)
        decision = judge(version, history.state.production) if judge else None
        if decision:
            store.tag(version, {"gates": decision.verdict, "decision": decision.to_json()})
        if decision and decision.verdict != PASSED:
            return _finished(store, version, done=False, decision=decision, mirror=mirror)
        entry = history.next(Entry(identity, action, version, 0, who, why, decision=decision.to_json() if decision else ""))
        unanswered += not _tried(store, entry, patient=unanswered < UNANSWERED)
        if attempt:
            time.sleep(random.uniform(0, (time.monotonic() - began) * min(attempt, MOST_TURNS)))
    raise ModelError(f"{store.name}: others change the registry all the time; {ATTEMPTS} attempts came too late. Try again.")


def _tried(store: Store, entry: Entry, *, patient: bool) -> bool:
    """Write an entry, unless one came in between already; False when the registry did not answer: the next reading tells whether it was written."""
    if store.history().head == entry.after:
        try:
            store.append(entry)
        except Unanswered:
            if not patient:
                raise
            return False
    return True


def _finished(store: Store, version: int, *, done: bool, mirror: bool, decision: Decision | None = None) -> Outcome:
    return Outcome(version, repair(store, mirror=mirror).state.stage(version), done, decision)
