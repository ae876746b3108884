"""`iadr1 gate`: whether a candidate may take the place of what is live, as a document and an exit code."""

import argparse
from pathlib import Path

from iadr1.errors import ModelError

HELP = "may a candidate take the place of the live model: every gate with its limit, value, interval and reason"
EXAMPLES = """\
examples:
  iadr1 gate --candidate data/predictions --live none                          a first release: the floors alone decide
  iadr1 gate --candidate data/predictions --live models:/iad-r1@production     beside what is live; needs the registry
  iadr1 gate --candidate new/predictions --live old/predictions --output out   two runs, without any registry; out/decision.{md,json}
  iadr1 gate --candidate models:/iad-r1@staging --live models:/iad-r1@production --to production

REPORT is an evaluation as a run leaves it: the folder data/predictions (of it the files with params.yaml's first evaluate.shots),
one file of predictions, or a registered version, which has its predictions with it. The limits are params.yaml: register.gates.
--to staging (the default) asks that the candidate is good enough and no worse than what is live on the same images;
--to production also that it is certainly better, so that a tie is refused. docs/registry.md explains every gate.

exit codes:
  0   passed
  3   refused by a gate
  1   could not decide (or an error): never a pass
  2   the command was given wrongly
"""


def add_gate(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `gate`."""
    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument("--candidate", required=True, metavar="REPORT", help="the evaluation that is judged")
    command.add_argument("--live", required=True, metavar="REPORT", help="that of the live model, or none when nothing is live")
    command.add_argument("--to", choices=("staging", "production"), default="staging", help="what is asked for (default: %(default)s)")
    command.add_argument("--model", default="sc_grpo", help="whose predictions, where a file holds those of several (default: %(default)s)")
    command.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="the limits (default: params.yaml)")
    command.add_argument("--output", type=Path, metavar="FOLDER", help="write decision.json and decision.md there")
    command.set_defaults(run=_gate)


def _gate(options: argparse.Namespace) -> int:
    from iadr1.evaluations import case_of, evaluation
    from iadr1.gates import decide
    from iadr1.params import load

    params = load(options.params)
    shots = params.evaluate.shots[0]
    candidate = evaluation(options.candidate, shots=shots, model=options.model)
    live = None if _nothing(options.live) else evaluation(options.live, shots=shots, model=options.model)
    decision = decide(case_of(candidate, live, params), dict(params.register.gates), to=options.to)
    if options.output:
        from iadr1.samples import write_lines

        write_lines(options.output / "decision.json", [decision.to_json()])
        write_lines(options.output / "decision.md", [decision.markdown().rstrip("\n")])
    print(decision.markdown(), end="")
    return decision.exit_code


def _nothing(live: str) -> bool:
    """Whether nothing is live: so said, or a registered model without a production version; a name that nobody registered is an error."""
    if live == "none" or not live.endswith("@production"):
        return live == "none"
    from iadr1.registry import SCHEME
    from iadr1.registry.store import Store

    name = live.removeprefix(SCHEME).removesuffix("@production")
    store = Store.at(name)
    if not store.is_there():
        raise ModelError(f"{live}: the registry has no model {name}. Mend the name, or say --live none for a first release.")
    return store.history().state.production is None
