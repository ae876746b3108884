"""What a version may become: None -> Staging -> Production -> Archived, and back to Production by a rollback. Pure; `iadr1.registry.history` keeps it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from iadr1.errors import ModelError

NONE, STAGING, PRODUCTION, ARCHIVED = "None", "Staging", "Production", "Archived"
ALIASES = ("production", "previous", "staging")

Action = Literal["stage", "promote", "rollback", "archive"]


@dataclass(frozen=True, slots=True)
class State:
    """Which version of a model is where; a version that is nowhere has the stage None.

    `previous` was in production before and is what a rollback goes back to; `retired` were in production once, `archived` were put away by a
    person and never come back. Both have the stage Archived.
    """

    staging: int | None = None
    production: int | None = None
    previous: int | None = None
    retired: frozenset[int] = frozenset()
    archived: frozenset[int] = frozenset()

    def stage(self, version: int) -> str:
        """The stage of a version, in MLflow's words."""
        if version in (self.production, self.staging):
            return PRODUCTION if version == self.production else STAGING
        return ARCHIVED if version in self.retired | self.archived else NONE

    @property
    def aliases(self) -> dict[str, int | None]:
        """The version of each alias, in the order in which they are to be set: production is never without the version to go back to."""
        return {"previous": self.previous, "production": self.production, "staging": self.staging}

    def already(self, action: Action, version: int) -> bool:
        """Whether the action would change nothing; production is more than staging."""
        match action:
            case "stage":
                return version in (self.staging, self.production)
            case "promote" | "rollback":
                return version == self.production
            case "archive":
                return version in self.archived

    def after(self, action: Action, version: int) -> "State":
        """The state after an action; raises ModelError that says why the action is not allowed and what is."""
        if self.already(action, version):
            return self
        match action:
            case "stage":
                return self._staged(version)
            case "promote":
                return self._promoted(version)
            case "rollback":
                return self._rolled_back(version)
            case "archive":
                return self._archived(version)

    def _staged(self, version: int) -> "State":
        if self.stage(version) == ARCHIVED:
            way = f"Go back to it with `iadr1 registry rollback --to {version}`" if version in self.retired else "Register the model anew"
            raise ModelError(f"version {version} is archived and does not become staging again. {way}.")
        return replace(self, staging=version)

    def _promoted(self, version: int) -> "State":
        if version != self.staging:
            found = self.stage(version)
            there = f"; version {self.staging} is in staging" if self.staging else ""
            raise ModelError(
                f"version {version} is not in staging (its stage is {found}){there}. "
                f"Only staging becomes production: `iadr1 registry promote {version} --to staging` first."
            )
        return replace(self._live(version), staging=None, previous=self.production)

    def _rolled_back(self, version: int) -> "State":
        if version not in self.retired:
            known = ", ".join(map(str, sorted(self.retired))) or "none"
            raise ModelError(
                f"version {version} cannot be gone back to: it was not in production, or is archived. Those that can be: {known}."
            )
        # No previous: a rollback that is sent twice must not lead back to what it left.
        return replace(self._live(version), previous=None)

    def _live(self, version: int) -> "State":
        """With another version in production; the one that leaves it is retired."""
        leaving = {self.production} if self.production is not None else set()
        return replace(self, production=version, retired=(self.retired | leaving) - {version})

    def _archived(self, version: int) -> "State":
        if version == self.production:
            raise ModelError(f"version {version} is in production. Promote another one or `iadr1 registry rollback`, then archive it.")
        return replace(
            self,
            staging=None if version == self.staging else self.staging,
            previous=None if version == self.previous else self.previous,
            retired=self.retired - {version},
            archived=self.archived | {version},
        )


def replayed(steps: Iterable[tuple[Action, int]], start: State | None = None) -> State:
    """The state after all steps, in order."""
    state = start or State()
    for action, version in steps:
        state = state.after(action, version)
    return state
