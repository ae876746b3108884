"""`iadr1 registry` against MLflow on SQLite: promotions that are earned, told, reversible, safe to repeat, and whole after a kill at any point."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from iadr1.cli import main
from iadr1.errors import ModelError
from iadr1.registry import lifecycle, named, registered
from iadr1.registry.command import judge
from iadr1.registry.store import Store
from tasks import register
from tests.evaluated import DATASETS, predictions
from tests.registries import ORIGIN, added, uploaded
from tests.test_tracking import evaluated, release

ROOT = Path(__file__).parents[1]
GATES = {
    "mean_balanced_accuracy": 60.0,
    "no_regression": {"points": 3.0, "images": 100},
    "better_than_live": {"points": 0.0, "images": 100},
}


@pytest.fixture(scope="module")
def home(mlflow_store):
    """The working folder of a registry, with parameters for the made data sets."""
    write_params(mlflow_store)
    return mlflow_store


def write_params(folder, **register):
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["evaluate"]["datasets"] = {name: tree["evaluate"]["datasets"][name] for name in DATASETS}
    tree["register"] = {"name": "iad-r1", "gates": GATES | {"lineage_complete": True, "data_validated": True}, **register}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))


class Model:
    """A registered model of a name of its own, with versions of chosen skill."""

    def __init__(self, home, name, skills, **origin):
        self.store, self.home = Store.at(name), home
        self.versions = [self.add(skill, **origin).number for skill in skills]

    def add(self, skill, **origin):
        folder = self.home / self.store.name / str(len(self.store.versions()) + 1 if self.store.is_there() else 1)
        return added(self.store, folder, predictions(skill=skill, images=120), ORIGIN | origin)

    def run(self, *command, who=True):
        said = ["--who", "ada", "--why", "a test"] if who else []
        return main(["registry", *map(str, command), "--name", self.store.name, *said])

    def to_production(self, version):
        assert self.run("promote", version, "--to", "staging") == 0
        return self.run("promote", "staging", "--to", "production")

    @property
    def state(self):
        history = self.store.history()
        assert self.store.shows(history.state), "MLflow's aliases and tags are those of the history"
        return history.state


def test_a_better_one_is_promoted_a_tie_and_a_worse_one_are_not(home, capsys):
    model = Model(home, "table", [0.8, 0.8, 0.5, 0.9])
    assert model.to_production(1) == 0  # nothing is live: the floors decide
    assert model.to_production(2) == 3
    assert "not certainly more than 0 points better" in capsys.readouterr().out
    assert model.run("promote", 3, "--to", "staging") == 3
    assert "provably worse: mvtec" in capsys.readouterr().out
    assert model.to_production(4) == 0
    state = model.state
    assert (state.production, state.previous, state.staging, state.stage(3)) == (4, 1, None, "None")
    tags = model.store.version(3).tags
    assert tags["gates"] == "refused" and json.loads(tags["decision"])["live"]["name"] == "table version 1"


def test_a_rollback_is_one_command_and_may_be_sent_twice(home, capsys):
    model = Model(home, "back", [0.7, 0.9])
    model.to_production(1), model.to_production(2)
    assert model.run("rollback") == 0
    assert model.run("rollback") == 0
    assert "back version 1 is Production already, by ada: a test" in capsys.readouterr().out
    assert (model.state.production, model.state.previous) == (1, None)
    assert model.run("rollback", "--to", 2) == 0 and model.state.production == 2
    assert model.run("rollback", "--to", 2) == 0 and len(model.store.history().entries) == 6
    assert named("models:/back@production").version == 2


def test_everything_is_told_by_whom_when_why_and_from_what(home, capsys):
    model = Model(home, "told", [0.7, 0.9])
    model.to_production(1), model.to_production(2), model.run("archive", 1)
    capsys.readouterr()
    model.run("history", "--json", who=False)
    entries = json.loads(capsys.readouterr().out)
    assert [(one["action"], one["version"], one["who"], one["why"]) for one in entries] == [
        ("stage", 1, "ada", "a test"), ("promote", 1, "ada", "a test"),
        ("stage", 2, "ada", "a test"), ("promote", 2, "ada", "a test"), ("archive", 1, "ada", "a test"),
    ]  # fmt: skip
    assert entries[3]["from"] == "Staging; production 1, staging 2" and entries[3]["decision"]["live"]["name"] == "told version 1"
    assert entries == sorted(entries, key=lambda one: one["when"]) and entries[0]["when"].startswith("20")
    model.run("history", who=False), model.run("show", "production", who=False), model.run("list", who=False)
    shown = capsys.readouterr().out
    assert "version 2 to production" in shown and "told version 2: Production, alias production" in shown and "| Archived" in shown
    assert "# told version 2 to production: passed" in shown
    model.run("list", "--json", who=False)
    assert json.loads(capsys.readouterr().out)["aliases"] == {"previous": None, "production": 2, "staging": None}


@pytest.mark.parametrize(
    "command, message",
    [
        (["promote", "2", "--to", "production"], "version 2 is not in staging (its stage is None)"),
        (["promote", "9", "--to", "staging"], "wrong version 9: the registry does not give it"),
        (["promote", "staging", "--to", "production"], "nothing is in staging of wrong"),
        (["rollback"], "wrong has no previous version to go back to"),
        (["rollback", "--to", "2"], "version 2 cannot be gone back to"),
        (["archive", "1"], "version 1 is in production"),
        (["show", "staging"], "no version of wrong is staging"),
        (["list", "--name", "nobody"], "the registry has no model nobody"),
    ],
)
def test_what_cannot_be_done_is_told_and_leaves_everything_as_it_was(home, capsys, command, message):
    store = Store.at("wrong")
    if not store.is_there():
        model = Model(home, "wrong", [0.8, 0.8])
        model.run("promote", 1, "--to", "staging"), model.run("promote", 1, "--to", "production")
        model.run("archive", model.add(0.7).number)
    before = store.history()
    said = [] if command[0] in ("show", "list") else ["--who", "ada", "--why", "a test"]
    assert main(["registry", *command, *([] if "--name" in command else ["--name", "wrong"]), *said]) == 1
    assert message in capsys.readouterr().err
    assert store.history() == before


def test_who_and_why_are_not_left_out(home, capsys):
    model = Model(home, "who", [0.8])
    assert main(["registry", "promote", "1", "--to", "staging", "--name", "who", "--who", " ", "--why", "x"]) == 1
    assert "an entry of the history names a person or a program, and a reason" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        model.run("promote", 1, "--to", "staging", who=False)


@pytest.mark.parametrize(
    "origin, code, message",
    [
        ({"validation": "failed, 3 errors, 0 warnings"}, 3, "validation of the data: failed, 3 errors"),
        ({"git_commit": "none"}, 3, "unknown: git_commit"),
        ({"validation": None}, 1, "the version does not tell it (no tag validation)"),  # not known is never a pass
    ],
)
def test_a_version_of_unknown_origin_is_not_promoted(home, capsys, origin, code, message):
    store = Store.at("origin")
    told = {key: value for key, value in (ORIGIN | origin).items() if value is not None}
    number = added(store, home / "origin" / next(iter(origin)) / str(code), predictions(skill=0.9), told).number
    assert main(["registry", "promote", str(number), "--to", "staging", "--name", "origin", "--who", "ada", "--why", "x"]) == code
    assert message in capsys.readouterr().out
    assert store.history().head == 0


def weights(home, model, version):
    return home / model.store.name / str(version) / "artifacts" / "sc_grpo"


def spoil(folder):
    (folder / "model.safetensors").write_bytes(b"other weights")


def add_code(folder):
    (folder / "model.bin").write_bytes(b"a pickle")


def lose(folder):
    (folder / "model.safetensors").unlink()


def test_a_file_that_is_not_as_registered_stops_every_transition_and_every_use(home, capsys):
    model = Model(home, "tampered", [0.7, 0.9, 0.95])
    model.to_production(1), model.to_production(2)
    model.run("promote", 3, "--to", "staging")
    before = model.store.history()
    for damage, message in (
        (spoil, "changed: artifacts/sc_grpo/model.safetensors"),
        (add_code, "not registered: artifacts/sc_grpo/model.bin"),
        (lose, "missing: artifacts/sc_grpo/model.safetensors"),
    ):
        for version in (1, 3):
            damage(weights(home, model, version))
        capsys.readouterr()
        for command in (["promote", "staging", "--to", "production"], ["rollback"]):
            assert model.run(*command) == 1
            assert message in capsys.readouterr().err
    assert model.store.history() == before and model.state.production == 2
    with pytest.raises(ModelError, match="is not what was registered"):
        registered("models:/tampered@staging")
    assert model.run("archive", 3) == 0  # what is not whole can still be put away


def test_older_stages_follow_where_that_is_wanted(home):
    write_params(home, mirror_stages=True)
    model = Model(home, "older", [0.7, 0.9])
    model.to_production(1), model.to_production(2)
    model.run("rollback")
    assert [version.stage_field for version in model.store.versions()] == ["Production", "Archived"]
    assert [version.tags["stage"] for version in model.store.versions()] == ["Production", "Archived"]
    write_params(home)


def test_aliases_that_a_hand_has_set_are_told_and_put_right(home, capsys):
    model = Model(home, "by-hand", [0.7, 0.9])
    model.to_production(1)
    model.store.client.set_registered_model_alias("by-hand", "production", "2")
    assert named("models:/by-hand@production").version == 1, "what inspects is what was promoted"
    model.run("list", who=False)
    assert "MLflow's aliases or tags are not what the history says (production 2)" in capsys.readouterr().out
    assert model.run("repair", who=False) == 0 and model.state.production == 1


def killed_before(write, *command):
    """How a command ended that was to be killed before that write."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed_writes", str(write), *command], check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    return done.returncode


@pytest.mark.slow
def test_a_power_cut_at_any_point_leaves_one_live_version_and_the_next_run_finishes(home):
    command = ["registry", "promote", "staging", "--to", "production", "--who", "ada", "--why", "a test", "--name"]
    for write in range(1, 20):
        model = Model(home, f"cut-{write}", [0.7, 0.9])
        model.to_production(1), model.run("promote", 2, "--to", "staging")
        code = killed_before(write, "iadr1", *command, model.store.name)
        live = named(f"models:/{model.store.name}@production").version
        aliases = model.store.aliases()
        assert live in (1, 2) and aliases["production"] in (1, 2)
        assert aliases["production"] != 2 or (live == 2 and aliases["previous"] == 1), "no version is live before its entry is written"
        assert model.run(*command[1:4], "production") == 0, "the next run finishes"
        assert (model.state.production, model.state.previous) == (2, 1)
        assert [one.action for one in model.store.history().entries] == ["stage", "promote", "stage", "promote"]
        if code != -signal.SIGKILL:
            break
    assert code == 0 and write > 5


@pytest.mark.slow
def test_a_power_cut_at_any_point_of_a_registration_leaves_no_half_version_and_the_next_run_finishes(home):
    for write in range(1, 20):
        params, work = release(home, f"reg-{write}")
        evaluated(work, right=9)
        code = killed_before(write, "register", work.name)
        store = Store.at(f"iad-r1-{work.name}")
        for version in store.versions() if store.is_there() else []:
            store.verify(version.number)
            assert store.evaluation(version.number) and version.tags["release_run"], "what is there is whole"
        assert set(store.aliases().values()) <= {1}
        register.main(params, work)
        history = store.history()
        assert (len(store.versions()), history.state.staging, len(history.entries)) == (1, 1, 1) and store.shows(history.state)
        if code != -signal.SIGKILL:
            break
    assert code == 0 and write > 5


def contended(model, versions, count):
    """Many at once: each stages a version of its own and promotes it; how each one ended."""
    params, ended, barrier = load(), [], threading.Barrier(count)

    def one(number):
        barrier.wait()
        found = list(outcomes(model.store, params, versions[number % len(versions)], f"thread {number}"))
        ended.append((number, *found))

    threads = [threading.Thread(target=one, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def load():
    from iadr1.params import load

    return load(Path("params.yaml"))


def outcomes(store, params, version, who):
    """To staging and to production: done, already, refused, or displaced by another one."""
    for to in ("staging", "production"):
        try:
            done = lifecycle.promote(store, lifecycle.number(version), to=to, who=who, why="at once", judge=judge(store, params, to=to))
            yield "refused" if done.refused else "done" if done.done else "already"
        except ModelError as error:
            assert "is not in staging" in str(error) or "is archived" in str(error), error
            yield "displaced"


def holds_together(store, ended):
    """One production version, as MLflow says and as the history says, and an entry for each one that was told that it had done something."""
    history = store.history()
    assert store.shows(history.state)
    told = sorted(entry.who for entry in history.entries)
    assert told == sorted(f"thread {number}" for number, *results in ended for result in results if result == "done")
    assert sum(history.state.stage(version.number) == "Production" for version in store.versions()) == 1
    live = None
    for entry in history.entries:
        if entry.action == "promote":
            beside = json.loads(entry.decision)["live"]
            assert (beside and beside["name"]) == (live and f"{store.name} version {live}"), "decided against what was live at that moment"
            live = entry.version
    return history


def test_promotions_at_once_leave_one_production_version_and_no_lost_entry(home):
    model = Model(home, "at-once", [0.7, 0.9])
    history = holds_together(model.store, contended(model, model.versions, 4))
    assert history.state.production is not None


@pytest.mark.slow
def test_fifty_promotions_at_once_against_a_server(tmp_path, monkeypatch):
    from tests.servers import mlflow_server

    with mlflow_server(tmp_path, f"sqlite:///{tmp_path / 'server.db'}") as url:
        fifty(tmp_path, monkeypatch, url)


@pytest.mark.slow
def test_fifty_promotions_at_once_against_a_server_on_postgresql(tmp_path, monkeypatch):
    from tests.servers import mlflow_server, postgresql

    with postgresql(tmp_path) as database, mlflow_server(tmp_path, database) as url:
        fifty(tmp_path, monkeypatch, url)


def fifty(folder, monkeypatch, url):
    """Fifty threads, ten versions that differ in skill, one registry behind a server."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    write_params(folder)
    store = Store.at("iad-r1")
    versions = [uploaded(store, folder / str(number), predictions(skill=0.6 + 0.03 * number)).number for number in range(10)]
    model = type("Served", (), {"store": store})
    ended = contended(model, versions, 50)
    history = holds_together(store, ended)
    promoted = [entry.version for entry in history.entries if entry.action == "promote"]
    print(f"{len(history.entries)} entries count; promoted in turn: {promoted}; attempts: {len(store._search('iad-r1.history'))}")
    assert len(ended) == 50 and history.state.production == promoted[-1]
    assert promoted == sorted(promoted), "each was better than the one before"
