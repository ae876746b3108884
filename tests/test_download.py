"""Downloads from a real S3 server and from a hub: whole, verified, resumed, and never in halves."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from iadr1.errors import DatasetError, Iadr1Error, ParamsError
from iadr1.params import Fetch
from tasks._download import INCOMPLETE, _name, download
from tasks._manifest import found_below, read_manifest, write_manifest
from tasks._storage import CHUNK, PATIENCE
from tests.stages import ROOT, workspace
from tests.stores import Hub, Spoiled, breaks_after, let_in, s3, served, waits_for

BIG = "bolt/test/hole/big.png"
FILES = {
    "bolt/train/good/000.png": b"first",
    "bolt/train/good/001.png": b"second",
    "bolt/train/good/twin.png": b"second",
    "bolt/train/good/empty.txt": b"",
    "bolt/test/ä ö #?&+%20/[x]*.png": b"odd name",
    BIG: os.urandom(4 * CHUNK),
}
TARGET, BESIDE = Path("data/raw"), Path("data/.raw.partial")


@pytest.fixture(autouse=True)
def _in_an_empty_folder_with_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    keys = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in {**keys, "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spoiled]:
    """An S3 server that has the files in the bucket `parts` below `v1`, and a manifest of them."""
    import boto3

    with s3() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        client = boto3.client("s3")
        client.create_bucket(Bucket="parts")
        for path, body in FILES.items():
            client.put_object(Bucket="parts", Key=f"v1/{path}", Body=body)
        write_down(FILES)
        yield server
        let_in(server, only_known_keys=False)


def write_down(files: dict[str, bytes]) -> None:
    """Make manifest.csv of files."""
    for path, body in files.items():
        Path("source", path).parent.mkdir(parents=True, exist_ok=True)
        Path("source", path).write_bytes(body)
    write_manifest(Path("manifest.csv"), found_below(Path("source"), sorted(files)).values())


def of_store(path: str = "s3://parts/v1", **changes: str | None) -> Fetch:
    """The parameters of a download from the S3 server."""
    return Fetch(**{"source": "s3", "path": path, "manifest": "manifest.csv", "train_images": 0, "test_images": 0, **changes})  # type: ignore[arg-type]


def there(folder: Path = TARGET) -> dict[str, bytes]:
    """The files of a folder but for the unfinished ones."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: body for path, body in files.items() if not path.startswith(".")}


def object_of(path: str) -> str:
    """How the server is asked for a file."""
    return f"/parts/v1/{path}"


def put(path: str, body: bytes) -> None:
    """Replace an object of the server."""
    import boto3

    boto3.client("s3").put_object(Bucket="parts", Key=f"v1/{path}", Body=body)


def test_all_files_come_and_nothing_is_asked_for_twice(store: Spoiled) -> None:
    assert len(download(of_store(), TARGET)) == len(FILES)
    assert there() == FILES
    assert list(Path("data").iterdir()) == [TARGET]
    assert sorted(path for path, _ in store.asked) == sorted(map(object_of, FILES))
    download(of_store(), TARGET)
    assert len(store.asked) == len(FILES)


def test_objects_come_side_by_side(store: Spoiled) -> None:
    second = threading.Event()
    store.spoils[object_of(BIG)].append(waits_for(second))
    store.spoils[object_of("bolt/train/good/000.png")].append(lambda body: second.set() or iter(body))  # type: ignore[func-returns-value]
    download(of_store(), TARGET)
    assert second.is_set()


def test_a_broken_connection_goes_on_where_it_broke(store: Spoiled) -> None:
    store.spoils[object_of(BIG)] += [breaks_after(2 * CHUNK), breaks_after(CHUNK)]
    download(of_store(), TARGET)
    assert there() == FILES
    ranges = [asked for path, asked in store.asked if path == object_of(BIG)]
    assert ranges[0] is None
    starts = [int(str(asked).removeprefix("bytes=").removesuffix("-")) for asked in ranges[1:]]
    assert len(starts) == 2 and 0 < starts[0] <= 2 * CHUNK and starts[0] <= starts[1] <= 3 * CHUNK


def test_a_connection_that_always_breaks_is_named_and_the_next_run_goes_on(store: Spoiled) -> None:
    store.spoils[object_of(BIG)] += [breaks_after(2 * CHUNK), *[breaks_after(0)] * PATIENCE]
    with pytest.raises(
        DatasetError, match=rf"s3://parts/v1/{BIG}: the connection broke {PATIENCE} times in a row \(.*\). Run again to go on"
    ):
        download(of_store(), TARGET)
    assert not TARGET.exists()
    assert BIG not in there(BESIDE)
    store.spoils.clear()
    store.asked.clear()
    download(of_store(), TARGET)
    assert there() == FILES
    assert [asked for path, asked in store.asked if path == object_of(BIG)] != [None]


def test_what_an_earlier_run_left_of_another_version_is_brought_anew(store: Spoiled) -> None:
    (entry,) = (entry for entry in read_manifest(Path("manifest.csv")) if entry.path == BIG)
    (BESIDE / INCOMPLETE).mkdir(parents=True)
    (BESIDE / INCOMPLETE / _name(entry)).write_bytes(b"not how it begins")
    download(of_store(), TARGET)
    assert there() == FILES


@pytest.mark.parametrize(
    "path, body, said",
    [
        (BIG, os.urandom(4 * CHUNK), "has the SHA-256 [0-9a-f]{12}…, the manifest says [0-9a-f]{12}…"),
        (BIG, b"short", "has 5 bytes, the manifest says 262,144"),
    ],
)
def test_an_object_that_is_another_is_named_and_dropped(store: Spoiled, path: str, body: bytes, said: str) -> None:
    put(path, body)
    with pytest.raises(
        DatasetError, match=rf"1 of 6 files of s3://parts/v1 are not what manifest.csv says \(1\):\n  {path}: {said}\nCorrect"
    ):
        download(of_store(), TARGET)
    assert not TARGET.exists()
    assert there(BESIDE) == {name: content for name, content in FILES.items() if name != path}
    assert list((BESIDE / INCOMPLETE).iterdir()) == []
    put(path, FILES[path])
    store.asked.clear()
    download(of_store(), TARGET)
    assert there() == FILES
    assert store.asked == [(object_of(path), None)]


def test_missing_objects_are_all_named(store: Spoiled) -> None:
    write_down({**FILES, "gone.png": b"1", "lost.png": b"2"})
    with pytest.raises(DatasetError, match=r"\(2\):\n  gone.png: no such object\n  lost.png: no such object\nCorrect"):
        download(of_store(), TARGET)
    assert not TARGET.exists()


def test_no_permission_is_said_with_what_to_set(store: Spoiled) -> None:
    let_in(store, only_known_keys=True)
    with pytest.raises(
        DatasetError, match=r"s3://parts/v1/.*: no permission to read \(.*\): the credentials .* Set AWS_PROFILE or AWS_ACCESS"
    ):
        download(of_store(), TARGET)
    assert not TARGET.exists()
    assert there(BESIDE) == {}


def test_without_credentials_a_public_bucket_is_read_and_a_private_one_says_so(store: Spoiled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(DatasetError, match=r"no permission to read \(.*\): boto3 found no credentials"):
        download(of_store(), TARGET)
    public(store)
    download(of_store(), TARGET)
    assert there() == FILES


def public(store: Spoiled) -> None:
    """Let everybody read the bucket's objects."""
    import boto3

    client = boto3.client("s3", aws_access_key_id="owner", aws_secret_access_key="secret")
    for path in FILES:
        client.put_object_acl(Bucket="parts", Key=f"v1/{path}", ACL="public-read")


def test_a_bucket_that_is_not_there_is_named(store: Spoiled) -> None:
    with pytest.raises(DatasetError, match=r"s3://elsewhere: no such bucket. Correct fetch.path, or AWS_ENDPOINT_URL"):
        download(of_store("s3://elsewhere/v1"), TARGET)


def test_a_store_that_does_not_answer_is_named(store: Spoiled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9")
    with pytest.raises(DatasetError, match=r"the store does not answer .*localhost:9.* Check the network and AWS_ENDPOINT_URL"):
        download(of_store(), TARGET)


def test_a_disk_that_is_too_small_is_said_before_anything_is_asked_for(store: Spoiled) -> None:
    rows = Path("manifest.csv").read_text().splitlines()
    Path("manifest.csv").write_text("\n".join([*rows, f"huge.png,{10**15},{'0' * 64}"]))
    with pytest.raises(DatasetError, match=r"1,000,000.00 GB have to come, but data has [0-9,.]+ GB free. Free some space"):
        download(of_store(), TARGET)
    assert store.asked == []


def test_a_disk_that_fills_up_on_the_way_leaves_no_half_file(store: Spoiled) -> None:
    (entry,) = (entry for entry in read_manifest(Path("manifest.csv")) if entry.path == BIG)
    (BESIDE / INCOMPLETE).mkdir(parents=True)
    (BESIDE / INCOMPLETE / _name(entry)).symlink_to("/dev/full")  # the kernel's own ENOSPC
    with pytest.raises(OSError, match="No space left") as full:
        download(of_store(), TARGET)
    assert full.value.errno == errno.ENOSPC
    assert not TARGET.exists()
    assert BIG not in there(BESIDE)
    assert list((BESIDE / INCOMPLETE).iterdir()) == []
    download(of_store(), TARGET)
    assert there() == FILES


def test_another_manifest_brings_only_what_is_new_and_removes_the_rest(store: Spoiled) -> None:
    download(of_store(), TARGET)
    new = {path: body for path, body in FILES.items() if path != BIG} | {"bolt/train/good/000.png": b"First", "bolt/more/1.png": b"more"}
    for path in ("bolt/train/good/000.png", "bolt/more/1.png"):
        put(path, new[path])
    write_down(new)
    store.asked.clear()
    download(of_store(), TARGET)
    assert there() == new
    assert not Path(TARGET, BIG).parent.exists()
    assert len(store.asked) == 2


def test_a_file_that_was_harmed_is_brought_again(store: Spoiled) -> None:
    download(of_store(), TARGET)
    Path(TARGET, BIG).write_bytes(b"harmed")
    store.asked.clear()
    download(of_store(), TARGET)
    assert there() == FILES
    assert store.asked == [(object_of(BIG), None)]


# Runs `fetch` without its tracking, in a process of its own.
CHILD = """
import sys
from pathlib import Path
from iadr1.errors import Iadr1Error
from iadr1.params import load
from tasks._run import Workspace
from tasks.fetch import fetched
params = load(Path("params.yaml"))
try:
    fetched(params, Workspace.of(params, Path("params.yaml")))
except Iadr1Error as error:
    sys.exit(f"fetch: {error}")
"""


def child(fetch: Fetch, **environment: str) -> "subprocess.Popen[str]":
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump({**tree, "fetch": fetch.model_dump()}))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": "hf",
        **environment,
    }
    return subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_killed_run_goes_on(store: Spoiled) -> None:
    never = threading.Event()
    store.spoils[object_of(BIG)].append(waits_for(never))
    running = child(of_store())
    others = len(FILES) - 1
    wait_until(lambda: len(there(BESIDE)) == others and any(path.stat().st_size for path in (BESIDE / INCOMPLETE).iterdir()))
    running.send_signal(signal.SIGKILL)
    running.communicate()
    never.set()
    assert not TARGET.exists()
    store.asked.clear()
    download(of_store(), TARGET)
    assert there() == FILES
    ((path, asked),) = store.asked
    assert path == object_of(BIG)
    assert asked is not None and asked.startswith("bytes=")


def wait_until(happened: object) -> None:
    for _ in range(1200):
        if BESIDE.exists() and happened():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within a minute")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"path": None}, "fetch.path is empty, but fetch.source is s3. Name where the files are."),
        (
            {"manifest": None},
            "fetch.manifest is empty, but fetch.source is s3. Name the list of its files. Write one where the files are: python",
        ),
        ({"manifest": "nowhere.csv"}, "fetch.manifest: no file nowhere.csv. Write one"),
        ({"path": "https://parts/v1"}, "fetch.path: 'https://parts/v1' is no place in an S3 store. Write s3://BUCKET/PREFIX."),
        (
            {"source": "hub", "path": "me/parts", "revision": "main"},
            "fetch.revision: 'main' is no commit hash, and a name may mean other files",
        ),
        ({"source": "hub", "path": "me/parts"}, "fetch.revision: None is no commit hash"),
    ],
)
def test_parameters_that_name_no_download_are_refused(changes: dict[str, str | None], message: str) -> None:
    write_down(FILES)
    with pytest.raises(Iadr1Error, match=message.replace(".", r"\.")):
        download(of_store(**{"path": "s3://parts/v1", **changes}), TARGET)  # type: ignore[arg-type]
    assert not TARGET.exists()


def test_a_source_that_is_not_known_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"fetch\.source: Input should be 'synthetic', 'folder', 's3' or 'hub'; found 'ftp'"):
        workspace(fetch={"source": "ftp"})


# --- the hub ---------------------------------------------------------------------------------------------------------------------------

REVISION = "0123456789abcdef0123456789abcdef01234567"
ON_HUB = {**{path: body for path, body in FILES.items() if "?" not in path}, "README.md": b"not in the manifest", "top.csv": b"a,b"}


@pytest.fixture
def hub() -> Iterator[Spoiled]:
    """A hub with a data set whose manifest names all but its README."""
    write_down({path: body for path, body in ON_HUB.items() if path != "README.md"})
    with served(Hub("me/parts", REVISION, ON_HUB)) as server:
        yield server


def fetched_from(hub: Spoiled, **changes: str) -> str:
    """What a run says in the end, in its own process: the hub's address is read when its library is imported."""
    fetch = of_store(**{"source": "hub", "path": "me/parts", "revision": REVISION, **changes})  # type: ignore[arg-type]
    running = child(fetch, HF_ENDPOINT=hub.url)
    out, err = running.communicate(timeout=120)
    assert "Traceback" not in err, err
    return (out if running.returncode == 0 else err).strip()


def test_a_data_set_of_the_hub_comes_at_its_revision_verified_and_once(hub: Spoiled) -> None:
    assert f"{len(ON_HUB) - 1} files, 4 of them images" in fetched_from(hub)
    assert there() == {path: body for path, body in ON_HUB.items() if path != "README.md"}
    assert {path.name for path in TARGET.iterdir()} == {"bolt", "top.csv"}
    asked = len(hub.asked)
    assert "verified in data/raw" in fetched_from(hub)
    assert len(hub.asked) == asked


def test_a_broken_connection_to_the_hub_goes_on(hub: Spoiled) -> None:
    big = f"/datasets/me/parts/resolve/{REVISION}/{BIG}"
    hub.spoils[big].append(breaks_after(2 * CHUNK))
    assert "verified in data/raw" in fetched_from(hub)
    assert there()[BIG] == FILES[BIG]


def test_a_file_of_the_hub_that_is_another_is_named_and_dropped(hub: Spoiled) -> None:
    write_down({"top.csv": b"a,c", BIG: FILES[BIG]})
    assert "top.csv: has the SHA-256" in fetched_from(hub)
    assert not TARGET.exists()
    assert there(BESIDE).keys() == {BIG}


@pytest.mark.parametrize("changes, said", [({"path": "me/other"}, "me/other at 0123"), ({"revision": "f" * 40}, "me/parts at ffff")])
def test_what_the_hub_does_not_have_is_said(hub: Spoiled, changes: dict[str, str], said: str) -> None:
    last = fetched_from(hub, **changes)
    assert said in last
    assert "the hub does not give it" in last
    assert not TARGET.exists()
