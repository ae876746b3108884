"""PostgreSQL, MLflow, Prefect and an S3 server on loopback: start them, stop them, or run a release on them.

python -m infra.stack up|status|down [--folder .stack/kept] [--port mlflow=5000]
python -m infra.stack run [--experiment stack]    services, a release, a promotion, a second one, a rollback, the history; then all stops
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.stack import demonstration
from infra.stack.process import ENDINGS, StackError
from infra.stack.services import NAMES, Stack, on_postgres, stack

STOPPED = 130
KEPT, RUN = Path(".stack/kept"), Path(".stack/run")


def up(services: Stack, folder: Path) -> None:
    """Start what does not run, and leave it running."""
    ready = False
    try:
        services.start()
        ready = True
    finally:
        if not ready:
            stop(services)
    show(services)
    print(f"\nFor a shell:  set -a; . {folder / 'env'}; set +a\nTo stop them: python -m infra.stack down --folder {folder}")


def stop(services: Stack) -> None:
    """Stop all, whatever the keyboard says meanwhile: half a stop leaves processes behind."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    services.stop()


def show(services: Stack) -> None:
    """Print where each service is and whether it answers."""
    for name in NAMES:
        service = services.services[name]
        state = "answers" if service.healthy() else "does not answer" if service.running else "stopped"
        print(f"{name:<10}{service.address:<26}{state}", flush=True)
    if not on_postgres():
        print("prefect keeps its runs in SQLite: asyncpg is not installed")


def run(folder: Path, experiment: str) -> None:
    """Show a release, promotions and a rollback on services of its own, and stop them however it ends."""
    demonstration.clear(folder)
    services = stack(folder)
    try:
        services.start()
        show(services)
        demonstration.show(experiment, folder / "project", services.environment)
    finally:
        stop(services)
        print("\nstopped; what they kept is in", folder, flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; exit 1 when something failed, 130 when stopped."""
    parser = argparse.ArgumentParser("python -m infra.stack", description=str(__doc__).partition("\n")[0])
    parser.add_argument("verb", choices=("up", "status", "down", "run"))
    parser.add_argument("--folder", type=Path, help=f"where they keep their data ({KEPT}; of run: {RUN}, made anew each time)")
    parser.add_argument("--port", action="append", default=[], metavar="NAME=NUMBER", help=f"of {', '.join(NAMES)}; else free ones")
    parser.add_argument("--experiment", default="stack", metavar="NAME", help="of run: an experiment of experiments/NAME.yaml")
    given = parser.parse_args(words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        if given.verb == "run":
            run(given.folder or RUN, given.experiment)
        else:
            act(given.verb, given.folder or KEPT, ports(given.port))
    except StackError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return STOPPED
    return 0


def act(verb: str, folder: Path, chosen: dict[str, int]) -> None:
    """Start, show or stop the services of a folder."""
    if verb != "up" and not folder.is_dir():
        print(f"{folder}: nothing was started there")
        return
    services = stack(folder, chosen)
    {"up": lambda: up(services, folder), "status": lambda: show(services), "down": lambda: stop(services)}[verb]()


def ports(words: Sequence[str]) -> dict[str, int]:
    """The ports that the command line names; raises StackError for what is none."""
    found = {}
    for word in words:
        name, _, number = word.partition("=")
        if not number.isdigit() or not 0 < int(number) < 65536:
            raise StackError(f"--port {word}: write NAME=NUMBER, such as mlflow=5000.")
        found[name] = int(number)
    return found


if __name__ == "__main__":
    sys.exit(main())
