"""Manifests: what is written is read again, and what is none is refused with its line."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iadr1.errors import DatasetError
from tasks._manifest import Entry, faults_of, found_below, read_manifest, write_manifest
from tests.stages import ROOT

A, B = "a" * 64, "b" * 64
HEAD = "path,bytes,sha256\n"
NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1).filter(lambda name: name[0] != ".")


@given(st.dictionaries(NAMES, st.tuples(st.integers(0, 10**18 - 1), st.sampled_from([A, B])), min_size=1))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, files: dict[str, tuple[int, str]]) -> None:
    file = tmp_path_factory.mktemp("manifest") / "manifest.csv"
    entries = [Entry(f"folder/{path}", *about) for path, about in files.items()]
    write_manifest(file, entries)
    assert read_manifest(file) == entries


@given(st.binary())
def test_no_content_does_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("manifest") / "manifest.csv"
    file.write_bytes(HEAD.encode() + content)
    try:
        read_manifest(file)
    except DatasetError as error:
        assert "manifest.csv" in str(error)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "its first line has to be path,bytes,sha256; found []"),
        ("path,sha256\n", "its first line has to be path,bytes,sha256; found ['path', 'sha256']"),
        (HEAD, "names no files"),
        (f"{HEAD}a.png,1\n", "manifest.csv:2: expected a path, a number of bytes and 64 hexadecimal digits; found ['a.png', '1']"),
        (f"{HEAD}a.png,-1,{A}\n", "manifest.csv:2: expected a path"),
        (f"{HEAD}a.png,1,abc\n", "manifest.csv:2: expected a path"),
        (f"{HEAD}../a.png,1,{A}\n", "manifest.csv:2: '../a.png' is no path below a folder"),
        (f"{HEAD}/etc/passwd,1,{A}\n", "manifest.csv:2: '/etc/passwd' is no path below a folder"),
        (f"{HEAD}a/./b,1,{A}\n", "manifest.csv:2: 'a/./b' is no path below a folder"),
        (f"{HEAD}a/.cache/b,1,{A}\n", "manifest.csv:2: 'a/.cache/b' is no path below a folder, or a hidden one"),
        (f"{HEAD}a,1,{A}\nb,1,{B}\na,1,{A}\n", "paths that are there twice (1):\n  a\n"),
        (f"{HEAD}a,1,{A}\na/b,1,{B}\n", "paths that are a file and a folder (1):\n  a\n"),
    ],
)
def test_what_is_no_manifest_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DatasetError) as refused:
        read_manifest(tmp_path / "manifest.csv")
    assert message in str(refused.value)


def test_a_file_is_missing_of_another_size_or_of_another_content() -> None:
    expected = [Entry("gone", 1, A), Entry("long", 1000, A), Entry("other", 1, A), Entry("same", 1, A)]
    found = {entry.path: entry for entry in (Entry("long", 2000, A), Entry("other", 1, B), Entry("same", 1, A))}
    assert faults_of(expected, found) == {
        "gone": "is missing",
        "long": "has 2,000 bytes, the manifest says 1,000",
        "other": "has the SHA-256 bbbbbbbbbbbb…, the manifest says aaaaaaaaaaaa…",
    }


def test_the_command_writes_the_manifest_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "parts" / "ä").mkdir(parents=True)
    (tmp_path / "parts" / "ä" / "1.png").write_bytes(b"one")
    (tmp_path / "parts" / ".hidden").write_bytes(b"left out")
    command = [sys.executable, "-m", "tasks._manifest", str(tmp_path / "parts"), str(tmp_path / "manifest.csv")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"manifest: 1 files, 3 bytes in {tmp_path / 'manifest.csv'}.\n", done.stderr
    entries = read_manifest(tmp_path / "manifest.csv")
    assert faults_of(entries, found_below(tmp_path / "parts", [entry.path for entry in entries])) == {}
