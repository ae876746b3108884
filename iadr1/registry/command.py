"""`iadr1 registry`: what is registered, and a promotion, a rollback or an archiving that is earned, explained and kept."""

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iadr1.params import Params
    from iadr1.registry.history import Entry, History
    from iadr1.registry.lifecycle import Judge, Outcome
    from iadr1.registry.store import Store
    from iadr1.registry.version import Version

HELP = "what is registered and what is live: list, show, history, promote, rollback, archive"
EXAMPLES = """\
examples:
  iadr1 registry list                                                     every version with its stage and what the gates said
  iadr1 registry show 3                                                   one version: origin, decision, and what was done with it
  iadr1 registry history                                                  who moved what, when, why and from what
  iadr1 registry promote 3 --to staging --who ada --why "new camera"      needs every gate but better_than_live
  iadr1 registry promote staging --to production --who ada --why "3 weeks on line 2"     needs every gate, against what is live now
  iadr1 registry rollback --who ada --why "misses scratches"              back to `previous`; asks no gate but the manifest of its files
  iadr1 registry archive 2 --who ada --why "old optics"                   never to be used again

A version is in one stage: None, Staging, Production or Archived. The aliases staging, production and previous follow, so that
models:/iad-r1@production is what inspects. Every command may be repeated; what is so already is told, and nothing is done.
The registry is that of $MLFLOW_REGISTRY_URI or $MLFLOW_TRACKING_URI, else mlflow.db in the working folder.

exit codes:
  0   done, or already so
  3   refused by the gates
  1   could not decide, or an error
  2   the command was given wrongly
"""
_MEANT = {"stage": "to staging", "promote": "to production", "rollback": "back to production", "archive": "to the archive"}


def add_registry(command: argparse.ArgumentParser) -> None:
    """Add the commands of `registry`."""
    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    commands = command.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "list", _list, "every version, its stage, and what the gates said", changes=False)
    show = _add(commands, "show", _show, "one version: origin, decision, history", changes=False)
    show.add_argument("version", type=_version, metavar="VERSION", help="a number, or staging, production, previous")
    _add(commands, "history", _history, "who moved what, when, why and from what", changes=False)
    promote = _add(commands, "promote", _promote, "move a version to staging or production, if the gates let it")
    promote.add_argument("version", type=_version, metavar="VERSION", help="a number, or staging")
    promote.add_argument("--to", choices=("staging", "production"), required=True, help="the stage")
    promote.add_argument(
        "--live", metavar="REPORT", help="predictions of the live version on the candidate's images, where its own are of others"
    )
    rollback = _add(commands, "rollback", _rollback, "back to the version that was in production before")
    rollback.add_argument("--to", type=int, metavar="VERSION", help="another one that was in production (default: previous)")
    archive = _add(commands, "archive", _archive, "put a version away for good")
    archive.add_argument("version", type=int, metavar="VERSION", help="a number")
    _add(commands, "repair", _repair, "make the aliases a copy of the history again; every change does it too", changes=False)


def _add(commands: Any, name: str, run: Any, about: str, *, changes: bool = True) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    command.add_argument("--name", default="iad-r1", help="the registered model (default: %(default)s)")
    command.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="the gates (default: params.yaml)")
    if changes:
        command.add_argument("--who", required=True, metavar="NAME", help="who decides this; kept in the history")
        command.add_argument("--why", required=True, metavar="TEXT", help="the reason; kept in the history")
    else:
        command.add_argument("--json", action="store_true", help="for a program")
    command.set_defaults(run=run)
    return command


def _version(text: str) -> int | str:
    return text if text in ("staging", "production", "previous") else int(text)


def judge(store: "Store", params: "Params", *, to: str, live_report: str | None = None) -> "Judge":
    """How the gates of the parameters decide on a version of the store beside the live one."""
    from functools import cache

    from iadr1.decision import Decision
    from iadr1.evaluations import case_of, evaluation, registered_evaluation
    from iadr1.gates import decide

    known = cache(lambda version: registered_evaluation(store, version))

    def judged(version: int, live: int | None) -> Decision:
        beside = None if live is None else known(live)
        if beside is not None and live_report:
            beside = evaluation(live_report, shots=params.evaluate.shots[0])
        return decide(case_of(known(version), beside, params), dict(params.register.gates), to=to)

    return judged


def _promote(options: argparse.Namespace) -> int:
    from iadr1.params import load
    from iadr1.registry import lifecycle

    params, store = load(options.params), _store(options)
    choice = _choice(options.version)
    ways = judge(store, params, to=options.to, live_report=options.live)
    outcome = lifecycle.promote(
        store, choice, to=options.to, who=options.who, why=options.why, judge=ways, mirror=params.register.mirror_stages
    )
    if outcome.refused and outcome.decision:
        print(outcome.decision.markdown(), end="")
        return outcome.decision.exit_code
    return _told(store, outcome)


def _rollback(options: argparse.Namespace) -> int:
    from iadr1.registry import lifecycle

    store = _store(options)
    choice = lifecycle.previous if options.to is None else lifecycle.number(options.to)
    return _told(store, lifecycle.rollback(store, choice, who=options.who, why=options.why, mirror=_mirror(options)))


def _archive(options: argparse.Namespace) -> int:
    from iadr1.registry import lifecycle

    store = _store(options)
    return _told(
        store, lifecycle.archive(store, lifecycle.number(options.version), who=options.who, why=options.why, mirror=_mirror(options))
    )


def _repair(options: argparse.Namespace) -> int:
    from iadr1.registry import lifecycle

    store = _store(options)
    history = lifecycle.repair(store, mirror=_mirror(options))
    aliases = {alias: number for alias, number in history.state.aliases.items() if number is not None}
    print(json.dumps(aliases) if options.json else f"{store.name}: {_aliases(aliases)}")
    return 0


def _list(options: argparse.Namespace) -> int:
    store = _store(options)
    history, versions = store.history(), store.versions()
    if options.json:
        told = [_version_told(version, history) for version in versions]
        print(json.dumps({"name": store.name, "aliases": history.state.aliases, "versions": told}, indent=1, ensure_ascii=False))
        return 0
    from iadr1.report_tables import table

    rows = [
        [
            str(version.number), history.state.stage(version.number), _alias(history, version.number), _time(version.made),
            version.tags.get("gates", ""), version.tags.get("git_commit", "")[:8], _why(version)[:90],
        ]
        for version in versions
    ]  # fmt: skip
    print(table(["version", "stage", "alias", "registered", "gates", "commit", "why"], rows), end="")
    if not store.shows(history.state):
        print(
            f"\nMLflow's aliases or tags are not what the history says ({_aliases(store.aliases())}). Put it right: `iadr1 registry repair`."
        )
    return 0


def _show(options: argparse.Namespace) -> int:
    store = _store(options)
    history = store.history()
    version = store.version(options.version if isinstance(options.version, int) else _named(history, options.version))
    told = _version_told(version, history)
    if options.json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
        return 0
    from iadr1.decision import Decision

    print(f"{version}: {told['stage']}" + (f", alias {', '.join(told['aliases'])}" if told["aliases"] else ""))
    shown = {key: value for key, value in told["tags"].items() if key not in ("manifest", "decision")}
    print("".join(f"{key:<18} {value}\n" for key, value in sorted(shown.items())))
    print(_history_table(history.of_version(version.number)))
    if version.tags.get("decision"):
        print(Decision.from_json(version.tags["decision"]).markdown(), end="")
    return 0


def _history(options: argparse.Namespace) -> int:
    history = _store(options).history()
    if options.json:
        print(json.dumps([_entry_told(entry) for entry in history.entries], indent=1, ensure_ascii=False))
    else:
        print(_history_table(history.entries), end="")
    return 0


def _store(options: argparse.Namespace) -> "Store":
    from iadr1.errors import ModelError
    from iadr1.registry.store import Store

    store = Store.at(options.name)
    if not store.is_there():
        raise ModelError(f"the registry has no model {options.name}. Make one with `make run`, or set MLFLOW_TRACKING_URI to your server.")
    return store


def _choice(version: int | str) -> Any:
    from iadr1.registry import lifecycle

    if isinstance(version, int):
        return lifecycle.number(version)
    return lifecycle.staged if version == "staging" else lambda history: _named(history, version)


def _named(history: "History", alias: str) -> int:
    from iadr1.errors import ModelError

    version = history.state.aliases[alias]
    if version is None:
        raise ModelError(f"no version of {history.name} is {alias}. `iadr1 registry list` shows what there is.")
    return version


def _mirror(options: argparse.Namespace) -> bool:
    """Whether older stages follow; a rollback must not fail for want of a parameter file."""
    from iadr1.params import load

    return options.params.is_file() and load(options.params).register.mirror_stages


def _told(store: "Store", outcome: "Outcome") -> int:
    history = store.history()
    last = history.of_version(outcome.version)
    by = f", by {last[-1].who}: {last[-1].why}" if last else ""
    print(f"{store.name} version {outcome.version} is {outcome.stage}{'' if outcome.done else ' already'}{by}")
    print(f"aliases: {_aliases({alias: number for alias, number in history.state.aliases.items() if number is not None})}")
    return 0


def _version_told(version: "Version", history: "History") -> dict[str, Any]:
    aliases = [alias for alias, number in history.state.aliases.items() if number == version.number]
    told = {"version": version.number, "stage": history.state.stage(version.number), "aliases": aliases, "registered": _time(version.made)}
    return {**told, "tags": dict(version.tags), "history": [_entry_told(entry) for entry in history.of_version(version.number)]}


def _entry_told(entry: "Entry") -> dict[str, Any]:
    told = {"entry": entry.number, "action": entry.action, "version": entry.version, "when": _time(entry.when)}
    decision = json.loads(entry.decision) if entry.decision else None
    return {**told, "who": entry.who, "why": entry.why, "from": entry.origin, "decision": decision}


def _history_table(entries: "Sequence[Entry]") -> str:
    from iadr1.report_tables import table

    rows = [
        [str(one.number), _time(one.when), f"version {one.version} {_MEANT[one.action]}", one.who, one.why, one.origin] for one in entries
    ]
    return table(["entry", "when", "what", "who", "why", "from"], rows)


def _why(version: "Version") -> str:
    from iadr1.decision import Decision

    told = version.tags.get("decision")
    return Decision.from_json(told).summary if told else ""


def _alias(history: "History", number: int) -> str:
    return ", ".join(alias for alias, version in history.state.aliases.items() if version == number)


def _aliases(aliases: Mapping[str, int]) -> str:
    return ", ".join(f"{alias} {number}" for alias, number in aliases.items()) or "none"


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
