"""Fetch: make the procedural benchmark, or list the images of the user's folder with their sizes and hashes.

Run it with `python -m tasks.fetch`, or as the first stage of `dvc repro`. The user's images stay where they are.
"""

import csv
import hashlib
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from iadr1.datasets import IMAGES, refuse
from iadr1.errors import DatasetError
from iadr1.params import Params
from tasks._parallel import each
from tasks._run import Workspace, fresh_directory, fresh_file, run_stage


@dataclass(frozen=True, slots=True)
class Entry:
    """An image file of the user's folder."""

    path: str
    bytes: int
    sha256: str


def main(params: Params, work: Workspace) -> None:
    """Fetch, and track how much there is."""
    from tasks._tracking import stage_run

    with stage_run(work, "fetch", params) as run:
        run.log_metrics(fetched(params, work))


def fetched(params: Params, work: Workspace) -> dict[str, float]:
    """Write the raw data, or the manifest of the user's; returns how many images there are, and their bytes."""
    target = Path(params.experiment.fetched)
    if params.fetch.source == "synthetic":
        return _make(params, target)
    entries = _indexed(_users_folder(params), cache=work.checkpoints / "fetch" / "hashes.csv")
    with fresh_file(target if target.suffix == ".csv" else target / "raw_manifest.csv") as path:
        _write_manifest(path, entries)
    size = sum(entry.bytes for entry in entries)
    print(f"fetch: {len(entries):,} images, {size / 1e6:,.0f} MB in {params.fetch.path}; they stay there.")
    return {"images": len(entries), "bytes": size}


def _make(params: Params, target: Path) -> dict[str, float]:
    from iadr1.synthetic_sets import plan, write_annotations, write_photo

    photos = plan(train_images=params.fetch.train_images, test_images=params.fetch.test_images, seed=params.seed)
    with fresh_directory(target) as root:
        visibilities = list(each(partial(write_photo, root), photos, doing="drawing"))
        write_annotations(root, photos, visibilities)
    print(f"fetch: {len(photos):,} images made in {target}.")
    return {"images": len(photos)}


def _users_folder(params: Params) -> Path:
    if not params.fetch.path:
        raise DatasetError(
            "fetch.path is empty, but fetch.source is folder. Name the folder that holds your images: make run EXPERIMENT=real DATA=FOLDER."
        )
    folder = Path(params.fetch.path)
    if not folder.is_dir():
        raise DatasetError(f"fetch.path: no folder {folder}. Correct it: make run EXPERIMENT=real DATA=FOLDER.")
    return folder


def _indexed(folder: Path, *, cache: Path) -> list[Entry]:
    """Every image below `folder`; hashes of files that have not changed since an earlier, perhaps interrupted, run come from the cache."""
    paths = sorted(_image_files(folder))
    if not paths:
        raise DatasetError(
            f"fetch.path: no images below {folder} ({', '.join(sorted(IMAGES))}). Put your images there, or name another folder."
        )
    known = _known_hashes(cache)
    stamps = {path: _stamp(path) for path in paths}
    new = [path for path in paths if (str(path), stamps[path]) not in known]
    cache.parent.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    with cache.open("a", encoding="utf-8", newline="") as file:
        for path, result in zip(new, each(_hashed, new, doing="hashing", waits=True), strict=True):
            if isinstance(result, OSError):
                failed.append(f"{path}: {result.strerror}")
                continue
            known[str(path), stamps[path]] = result
            csv.writer(file).writerow([path, stamps[path], result])
    refuse("fetch.path: files that cannot be read", failed, do="Correct their permissions, or remove them.")
    return [Entry(path.relative_to(folder).as_posix(), int(stamps[path].split("-")[0]), known[str(path), stamps[path]]) for path in paths]


def _image_files(folder: Path) -> Iterator[Path]:
    """Image files at any depth, linked folders included; a link that leads back is not followed twice."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and os.path.realpath(Path(here, name)) not in seen]
        seen.update(os.path.realpath(Path(here, name)) for name in folders)
        yield from (Path(here, name) for name in files if Path(name).suffix.lower() in IMAGES and not name.startswith("."))


def _stamp(path: Path) -> str:
    state = path.lstat() if not path.exists() else path.stat()
    return f"{state.st_size}-{state.st_mtime_ns}"


def _hashed(path: Path) -> str | OSError:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return error


def _known_hashes(cache: Path) -> dict[tuple[str, str], str]:
    if not cache.is_file():
        return {}
    with cache.open(encoding="utf-8", newline="") as file:
        # A kill may have cut the last line.
        return {(row[0], row[1]): row[2] for row in csv.reader(file) if len(row) == 3 and len(row[2]) == 64}


def _write_manifest(path: Path, entries: list[Entry]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([tuple(Entry.__slots__), *map(astuple, entries)])


if __name__ == "__main__":
    run_stage("fetch", main)
