"""Fetch: make the procedural benchmark, list the images of the user's folder with their sizes and hashes, or download what a manifest names.

Run it with `python -m tasks.fetch`, or as the first stage of `dvc repro`. The user's images stay where they are.
"""

import csv
from functools import partial
from pathlib import Path

from iadr1.datasets import IMAGES, refuse
from iadr1.errors import DatasetError
from iadr1.params import Params
from tasks._download import SOURCES, download
from tasks._manifest import Entry, faults_of, files_below, hashed, read_manifest, write_manifest
from tasks._parallel import each
from tasks._run import Workspace, fresh_directory, fresh_file, run_stage


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
    if params.fetch.source in SOURCES:
        return _downloaded(params, target)
    entries = _indexed(_users_folder(params), cache=work.checkpoints / "fetch" / "hashes.csv")
    if params.fetch.manifest:
        _refuse_other_files(entries, params)
    with fresh_file(target if target.suffix == ".csv" else target / "raw_manifest.csv") as path:
        write_manifest(path, entries)
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


def _downloaded(params: Params, target: Path) -> dict[str, float]:
    entries = download(params.fetch, target)
    images = sum(Path(entry.path).suffix.lower() in IMAGES for entry in entries)
    size = sum(entry.bytes for entry in entries)
    print(f"fetch: {len(entries):,} files, {images:,} of them images, {size / 1e6:,.0f} MB of {params.fetch.path} verified in {target}.")
    return {"images": images, "bytes": size}


def _refuse_other_files(entries: list[Entry], params: Params) -> None:
    """Refuse a folder whose images are not those of its manifest."""
    expected = [entry for entry in read_manifest(Path(str(params.fetch.manifest))) if Path(entry.path).suffix.lower() in IMAGES]
    faults = faults_of(expected, {entry.path: entry for entry in entries})
    refuse(
        f"fetch: images of {params.fetch.path} that are not what {params.fetch.manifest} says",
        [f"{path}: {fault}" for path, fault in sorted(faults.items())],
        do="Restore the images, or write the manifest anew.",
    )


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
    paths = sorted(path for path in files_below(folder) if path.suffix.lower() in IMAGES)
    if not paths:
        raise DatasetError(
            f"fetch.path: no images below {folder} ({', '.join(sorted(IMAGES))}). Put your images there, or name another folder."
        )
    unnamed = [ascii(path.relative_to(folder).as_posix()) for path in paths if not _is_utf_8(path)]
    refuse("fetch.path: names that are not UTF-8", unnamed, do="Rename them.")
    known = _known_hashes(cache)
    stamps = {path: _stamp(path) for path in paths}
    new = [path for path in paths if (str(path), stamps[path]) not in known]
    cache.parent.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    with cache.open("a", encoding="utf-8", newline="") as file:
        for path, result in zip(new, each(hashed, new, doing="hashing", waits=True), strict=True):
            if isinstance(result, OSError):
                failed.append(f"{path}: {result.strerror}")
                continue
            known[str(path), stamps[path]] = result
            csv.writer(file).writerow([path, stamps[path], result])
    refuse("fetch.path: files that cannot be read", failed, do="Correct their permissions, or remove them.")
    return [Entry(path.relative_to(folder).as_posix(), int(stamps[path].split("-")[0]), known[str(path), stamps[path]]) for path in paths]


def _is_utf_8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _stamp(path: Path) -> str:
    state = path.lstat() if not path.exists() else path.stat()
    return f"{state.st_size}-{state.st_mtime_ns}"


def _known_hashes(cache: Path) -> dict[tuple[str, str], str]:
    if not cache.is_file():
        return {}
    with cache.open(encoding="utf-8", newline="") as file:
        # A kill may have cut the last line.
        return {(row[0], row[1]): row[2] for row in csv.reader(file) if len(row) == 3 and len(row[2]) == 64}


if __name__ == "__main__":
    run_stage("fetch", main)
