"""Disturb releases on purpose, and see that no half-registered version is live, nothing is lost, and the next run ends as if nothing had happened.

python -m infra.drills [--only NAME ...] [--list]    each also writes its line of docs/drills.md
"""

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.drills.commands import Failed
from infra.drills.page import page
from infra.drills.questions import Outcome, outcome
from infra.drills.scene import Scene
from infra.drills.table import DRILLS, Drill
from infra.stack.demonstration import clear
from infra.stack.process import StackError

FOLDER, PAGE = Path(".stack/drills"), Path("docs/drills.md")
STOPPED = 130


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; exit 1 when a drill failed, 130 when stopped."""
    parser = argparse.ArgumentParser("python -m infra.drills", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[drill.name for drill in DRILLS], metavar="NAME", help="some of them")
    parser.add_argument("--list", action="store_true", help="tell their names")
    parser.add_argument(
        "--folder",
        type=Path,
        default=FOLDER,
        help="where they take place, made anew each time; elsewhere than %(default)s the page stays as it is",
    )
    given = parser.parse_args(words)
    if given.list:
        print("".join(f"{drill.name:<24}{drill.breaks}\n" for drill in DRILLS), end="")
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    chosen = [drill for drill in DRILLS if not given.only or drill.name in given.only]
    try:
        outcomes = drilled(given.folder, chosen)
    except (Failed, StackError) as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return STOPPED
    if given.folder == FOLDER:
        before = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
        PAGE.write_text(page(outcomes, commit(), before), encoding="utf-8")
    failed = [one.drill.name for one in outcomes if not one.passed]
    print(f"\n{len(outcomes) - len(failed)} of {len(outcomes)} drills held" + (f"; not: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def drilled(folder: Path, drills: Sequence[Drill]) -> list[Outcome]:
    """The outcomes of drills, on services of their own, which are stopped however it ends; what they leave is kept when one fails."""
    clear(folder / "stack")
    shutil.rmtree(folder, ignore_errors=True)
    scene = Scene(folder)
    try:
        print("a release that nothing disturbs ...", flush=True)
        scene.build()
        return [shown(outcome(scene, drill)) for drill in drills]
    finally:
        scene.close()


def commit() -> str:
    """The commit that the drills were run at; "unknown" outside of a repository."""
    told = subprocess.run(("git", "describe", "--always", "--dirty", "--exclude=*"), capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def shown(found: Outcome) -> Outcome:
    """Print an outcome at once."""
    print(f"{found.drill.name:<24}{'held' if found.passed else 'FAILED':<8}{found.seconds:4.0f} s  {found.said[:110]}", flush=True)
    for wrong in (*found.live, *found.kept, *found.next_run):
        print(f"{'':<24}{wrong}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
