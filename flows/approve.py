"""A person's yes before a version goes live: waits for it with name and reason, and then promotes. No answer in time promotes nothing.

Deployed, the flow suspends until somebody resumes it on Prefect's page. Without a server nobody is asked, because who runs it says yes:

python -m flows.approve VERSION --who NAME --why TEXT [--to production] [--name iad-r1]
"""

import argparse
import sys
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment
from prefect.states import Completed, Failed

from flows import release
from flows.commands import run_command
from flows.processes import CommandFailed

DAY = 24 * 3600
REFUSED = 3
KEY = "a-persons-yes"


class Approval(RunInput):
    """What a person answers: yes or no, who it is, and why."""

    approve: bool
    who: str
    why: str


@flow(name="approve", persist_result=False)
def approve(
    version: int | str = "staging",
    to: str = "production",
    name: str = "iad-r1",
    who: str | None = None,
    why: str | None = None,
    timeout: int = DAY,
) -> Any:
    """Ask for a yes unless `who` and `why` are told, and promote; Declined, or Refused where the gates do not let the version through.

    Fails after `timeout` seconds without an answer.
    """
    version = str(version)
    if who is None or why is None:
        answer = asked(version, to, name, timeout)
        if not answer.approve:
            return Completed(name="Declined", message=f"{answer.who}: {answer.why}")
        who, why = answer.who, answer.why
    who, why = complete(who, why)
    words = ["promote", version, "--to", to, "--who", who, "--why", why, "--name", name]
    ended = run_command("promote", ["iadr1", "registry", *words], expected=(0, REFUSED))
    said = "\n".join(ended.lines).strip()
    if ended.code == REFUSED:
        return Failed(name="Refused", message=f"the gates refuse {name} {version}: {said}")
    emit_event(
        "iadr1.promoted", resource={"prefect.resource.id": f"iadr1.model.{name}"}, payload={"version": version, "to": to, "who": who}
    )
    return Completed(message=said)


def complete(who: str, why: str) -> tuple[str, str]:
    """Who and why without the space around them; raises CommandFailed where one says nothing."""
    if not (who.strip() and why.strip()):
        raise CommandFailed("approve: a yes needs who says it, and why. Nothing was promoted; run it again.", 2)
    return who.strip(), why.strip()


def asked(version: str, to: str, name: str, timeout: int) -> Approval:
    """A person's answer. A deployed run gives its worker back while it waits, and begins anew with the answer; another one waits where it is."""
    show_decision(version, name)
    if deployment.id:
        return suspend_flow_run(wait_for_input=described(version, to, name), timeout=timeout, key=KEY)
    return pause_flow_run(wait_for_input=described(version, to, name), timeout=timeout, poll_interval=5)


def described(version: str, to: str, name: str) -> type[Approval]:
    """The form that a person fills in, with what it is about."""
    question = (
        f"Shall {name} {version} become {to}? See the artifact `decision` of this run. Your name and reason are kept in the registry."
    )
    return Approval.with_initial_data(description=question, approve=False)


def show_decision(version: str, name: str) -> None:
    """Leave what the registry knows of the version as an artifact of the run."""
    ended = run_command("show", ["iadr1", "registry", "show", version, "--name", name])
    create_markdown_artifact(key="decision", markdown="\n".join(ended.lines))


def main() -> None:
    """Promote from the command line; exit code 3 when the gates refuse, 1 when it could not be decided."""
    parser = argparse.ArgumentParser("python -m flows.approve", description=str(__doc__).partition("\n")[0])
    parser.add_argument("version", metavar="VERSION", help="a number, or staging")
    parser.add_argument("--who", required=True)
    parser.add_argument("--why", required=True)
    parser.add_argument("--to", default="production", choices=("staging", "production"))
    parser.add_argument("--name", default="iad-r1")
    given = vars(parser.parse_args())
    release.stop_orderly()
    sys.exit(release.exit_code(lambda: release.settled(approve(**given, return_state=True), "Refused"), {"Refused": REFUSED}))


if __name__ == "__main__":
    main()
