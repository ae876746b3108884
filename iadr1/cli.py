"""The command line of the inspection core: `iadr1 score`, `iadr1 report`, `iadr1 explain`. See `iadr1 COMMAND --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from iadr1.errors import Iadr1Error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 1 for an error of the input, 2 for one of usage."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except Iadr1Error as error:
        print(f"iadr1: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="iadr1", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser("score", help="reward completions against their solutions")
    score.add_argument("--input", type=Path, required=True, help='JSONL rows {"id", "completion", "solution"}')
    score.add_argument("--output", type=Path, required=True, help="JSONL rows of rewards; null where not scoreable")
    score.add_argument("--preset", required=True, choices=("paper", "released", "strict"))
    score.add_argument("--grid", type=int, default=3, choices=range(1, 6), help="cells on a side of the location grid")
    score.set_defaults(run=_score)
    return parser


def _score(options: argparse.Namespace) -> int:
    from iadr1.samples import write_lines
    from iadr1.scoring import scored_lines

    write_lines(options.output, scored_lines(options.input, preset=options.preset, grid=options.grid))
    return 0


if __name__ == "__main__":
    sys.exit(main())
