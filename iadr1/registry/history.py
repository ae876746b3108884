"""The history of a registered model: an append-only list of transitions from which its state follows, and nothing else.

MLflow has no compare-and-swap, and its aliases are separate rows: a lock made of tags or aliases would need a lease, and a holder that wakes after
its lease would write over its successor. So the truth is a list that the server orders. An entry is a version of a second registered model,
`NAME.history`; the server gives versions consecutive numbers under a primary key (workspace, name, version) and writes a version with all its tags
in one transaction. Hence, with SQLite, with PostgreSQL and behind an MLflow server:

1. An entry is there whole or not at all, has a number of its own, and is visible when any later one is: the next number is one more than
   the largest that is committed, and numbers are never given twice, not even after a deletion.
2. Every entry says after which entry it was decided (`after`). It counts if and only if that is the last one that counts before it. Whoever reads
   the list finds the same entries to count, so of two that were decided at once exactly one counts; the other decides anew on the new state.
   At every moment at least one writer succeeds; nobody waits for one that died.
3. A writer that does not learn whether it succeeded (a lost answer, a repeated request) finds its entry by its id and does not write a second one;
   a repetition does not count, because its `after` is no longer the last.
4. No entry is ever changed or deleted, so none can be lost; one that a person deletes is noticed, because the next one names it.

Aliases, tags and the older stage field are a copy of the state (`Store.show`): whoever has written an entry copies it, and copies again until
the list has not grown meanwhile. A power cut between an entry and its copy is repaired by the next command, and our own readers
(`registered`, `live`) follow the list. The time of an entry is the server's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from iadr1.errors import ModelError
from iadr1.registry.states import Action, State, replayed

_TAGS = ("id", "action", "version", "after", "who", "why", "origin", "decision")


@dataclass(frozen=True, slots=True)
class Entry:
    """One transition: what was done with which version, after which entry, by whom, why, and from what.

    `origin` tells the state before; `decision` is its JSON, empty where none is needed; `number` and `when` (milliseconds since 1970) are the server's.
    """

    id: str
    action: Action
    version: int
    after: int
    who: str
    why: str
    origin: str = ""
    decision: str = ""
    number: int = 0
    when: int = 0

    def tags(self) -> dict[str, str]:
        """The entry as tags of a version."""
        return {name: str(getattr(self, name)) for name in _TAGS}

    @classmethod
    def of_tags(cls, tags: Mapping[str, str], *, number: int, when: int) -> "Entry | None":
        """The entry of a version's tags; None for what is no entry."""
        try:
            told: dict[str, Any] = {name: tags[name] for name in _TAGS}
            return cls(**{**told, "version": int(told["version"]), "after": int(told["after"])}, number=number, when=when)
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True)
class History:
    """The entries that count, in order."""

    name: str
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, name: str, found: Iterable[Entry]) -> "History":
        """The history in a server's list; raises ModelError when an entry is missing from it."""
        entries: list[Entry] = []
        head = 0
        for entry in sorted(found, key=lambda entry: entry.number):
            if entry.after > head:
                raise ModelError(
                    f"the history of {name} is damaged: entry {entry.number} follows entry {entry.after}, which is not there. "
                    f"Bring back the versions of the registered model {name}.history from a back-up of MLflow's database."
                )
            if entry.after == head:
                entries.append(entry)
                head = entry.number
        return cls(name, tuple(entries))

    @property
    def head(self) -> int:
        """The number of the last entry, 0 before the first."""
        return self.entries[-1].number if self.entries else 0

    @cached_property
    def state(self) -> State:
        """Which version is where."""
        return replayed((entry.action, entry.version) for entry in self.entries)

    def holds(self, identity: str) -> bool:
        """Whether an entry counts."""
        return any(entry.id == identity for entry in self.entries)

    def of_version(self, version: int) -> list[Entry]:
        """The entries about a version."""
        return [entry for entry in self.entries if entry.version == version]

    def next(self, entry: Entry) -> Entry:
        """The entry as it is decided on now."""
        state = self.state
        place = {"production": state.production, "previous": state.previous, "staging": state.staging}
        origin = ", ".join(f"{alias} {version}" for alias, version in place.items() if version is not None)
        return replace(entry, after=self.head, origin=f"{state.stage(entry.version)}; {origin or 'nothing was in use'}")
