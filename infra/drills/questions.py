"""A drill from its beginning to its end: the disturbance, and the three questions that are asked after it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from infra.drills import commands
from infra.drills.commands import BUSY, Failed
from infra.drills.records import lost
from infra.drills.results import differences
from infra.drills.scene import Scene
from infra.drills.table import Drill
from infra.stack.process import StackError

FEW = 3
# A flow that was killed holds Prefect's limit for a minute, and whoever comes meanwhile is told to wait.
SECONDS_BUSY = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a person read, what is wrong with the answer to each question (empty: nothing), and how many seconds it took."""

    drill: Drill
    said: str
    live: Sequence[str]
    kept: Sequence[str]
    next_run: Sequence[str]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        return not (self.live or self.kept or self.next_run)


def outcome(scene: Scene, drill: Drill) -> Outcome:
    """Break what the drill breaks, ask, release again, and ask again."""
    start, said = time.monotonic(), ""
    live: list[str] = []
    kept: list[str] = []
    next_run: list[str] = []
    try:
        scene.before(drill.before, drill.name)
        before = scene.records.all()
        try:
            said = drill.run(scene)
        except Failed as failure:
            next_run.append(f"the drill itself: {failure}")
        commands.kill_all(scene.project)
        scene.stack.start()
        live += half_live(scene, spared=scene.tampered)
        between = scene.records.all()
        kept += lost(before, between)
        next_run += after_the_next_run(scene)
        live += half_live(scene)
        kept += lost(between, scene.records.all())
    except (Failed, StackError) as failure:
        next_run.append(str(failure))
    return Outcome(drill, said, live, kept, next_run, time.monotonic() - start)


def half_live(scene: Scene, spared: frozenset[str] | set[str] = frozenset()) -> list[str]:
    """Versions that an alias leads to and that are not, file by file, what was registered."""
    found = (version for version in scene.records.versions() if version.aliases and not version.whole and str(version) not in spared)
    return [f"{', '.join(sorted(version.aliases))} leads to {version}, which is not whole" for version in found]


def after_the_next_run(scene: Scene) -> list[str]:
    """What is not as it would be had nothing happened, once the release has run again."""
    scene.write_experiment(register={"name": scene.model})
    ended, end = scene.release().ended(), time.monotonic() + SECONDS_BUSY
    while ended.code == BUSY and time.monotonic() < end:
        time.sleep(5)
        ended = scene.release().ended()
    if ended.code != 0:
        return [f"exit code {ended.code}: {ended.said}"]
    wrong = differences(scene.undisturbed, scene.result())[:FEW]
    versions = scene.versions()
    if not any(version.identity == scene.identity and version.whole for version in versions) or not any(
        version.aliases for version in versions
    ):
        wrong.append(f"no version with the model and predictions of an undisturbed run, or none in use: {[str(one) for one in versions]}")
    return wrong
