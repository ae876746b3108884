"""fetch and prepare: what they write, what they say, and what they refuse."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from iadr1.errors import DatasetError
from iadr1.expert_ad.review import decide, record
from iadr1.params import Source
from iadr1.samples import Sample, read_samples
from iadr1.splits import physical_of
from tasks._parallel import FEW, each
from tasks.fetch import fetched
from tasks.prepare import VISIBILITY, prepared
from tests import layouts
from tests.stages import of_folder, workspace

PARTS = ("pa_sft", "sc_grpo", "validation")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    layouts.parts(tmp_path / "images")
    return tmp_path / "images"


def rows(part: str) -> list[Sample]:
    return read_samples(Path("data/prepared", f"{part}.jsonl"))


# --- fetch -----------------------------------------------------------------------------------------------------------------------------


def manifest() -> list[dict[str, str]]:
    with Path("data/raw_manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_listed_with_sizes_and_hashes_and_stays_where_it_is(folder: Path) -> None:
    assert fetched(*of_folder(folder))["images"] == 82
    first = manifest()[0]
    assert first["path"] == "bolt/ground_truth/hole/000_mask.png"
    assert int(first["bytes"]) == (folder / first["path"]).stat().st_size
    assert len(first["sha256"]) == 64
    assert [path.name for path in Path("data").iterdir()] == ["raw_manifest.csv"]


def test_a_second_listing_is_the_same_and_hashes_only_what_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(*of_folder(folder))
    before = Path("data/raw_manifest.csv").read_bytes()
    hashed: list[Path] = []
    monkeypatch.setattr("tasks.fetch.hashed", lambda path: hashed.append(path) or "0" * 64)
    fetched(*of_folder(folder))
    assert Path("data/raw_manifest.csv").read_bytes() == before
    assert hashed == []
    layouts.picture(folder / "bolt/test/good/new.png")
    fetched(*of_folder(folder))
    assert [path.name for path in hashed] == ["new.png"]


def test_a_listing_that_was_killed_goes_on(folder: Path) -> None:
    params, work = of_folder(folder)
    fetched(params, work)
    cache = work.checkpoints / "fetch" / "hashes.csv"
    cache.write_text(cache.read_text()[:1000])  # in the middle of a line
    expected = Path("data/raw_manifest.csv").read_bytes()
    Path("data/raw_manifest.csv").unlink()
    fetched(params, work)
    assert Path("data/raw_manifest.csv").read_bytes() == expected


def test_links_to_folders_are_followed_once(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "bolt", tmp_path / "elsewhere")
    (folder / "bolt").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(folder)
    assert fetched(*of_folder(folder))["images"] == 82


@pytest.mark.parametrize(
    "path, message",
    [
        (None, "fetch.path is empty, but fetch.source is folder. Name the folder"),
        ("nowhere", "fetch.path: no folder nowhere. Correct it"),
        (".", "fetch.path: no images below"),
    ],
)
def test_a_folder_that_cannot_be_listed_is_refused(path: str | None, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        fetched(*workspace(fetch={"source": "folder", "path": path}))


def test_a_folder_can_be_held_to_a_manifest(folder: Path) -> None:
    fetched(*of_folder(folder))
    shutil.copy("data/raw_manifest.csv", "manifest.csv")
    params, work = of_folder(folder)
    params = params.__class__(**{**params.__dict__, "fetch": params.fetch.model_copy(update={"manifest": "manifest.csv"})})
    assert fetched(params, work)["images"] == 82
    layouts.picture(folder / "bolt/test/good/000.png", grey=0)
    with pytest.raises(
        DatasetError, match=r"that are not what manifest.csv says \(1\):\n  bolt/test/good/000.png: has .*\nRestore the images"
    ):
        fetched(params, work)


def test_made_images_are_written_whole_and_the_same_again() -> None:
    params, work = workspace(fetch={"source": "synthetic", "train_images": 4, "test_images": 2})
    assert fetched(params, work) == {"images": 4 + 6 * 2}
    before = {path: path.read_bytes() for path in Path("data/raw").rglob("*") if path.is_file()}
    fetched(params, work)
    assert {path: path.read_bytes() for path in Path("data/raw").rglob("*") if path.is_file()} == before


# --- prepare ---------------------------------------------------------------------------------------------------------------------------


def test_parts_and_tests_are_written_as_asked(folder: Path) -> None:
    prepared(*of_folder(folder))
    assert {part: (len(rows(part)), sum(sample.anomalous for sample in rows(part))) for part in (*PARTS, "test/parts")} == {
        "pa_sft": (10, 5),
        "sc_grpo": (6, 3),
        "validation": (4, 2),
        "test/parts": (8, 4),
    }
    assert len({physical_of(sample) for part in PARTS for sample in rows(part)}) == 20


def test_only_rows_that_are_imitated_have_chains(folder: Path) -> None:
    prepared(*of_folder(folder))
    assert all(sample.reasoning for part in ("pa_sft", "validation") for sample in rows(part))
    assert not any(sample.reasoning for part in ("sc_grpo", "test/parts") for sample in rows(part))


def test_defects_have_location_type_and_visibility_from_mask_and_folder(folder: Path) -> None:
    prepared(*of_folder(folder))
    defects = [sample for part in (*PARTS, "test/parts") for sample in rows(part) if sample.anomalous]
    assert {sample.location for sample in defects} == {"top left"}
    assert {sample.type for sample in defects} == {"scratch", "hole"}
    assert all(sample.visibility is not None and 0 <= sample.visibility < 1 for sample in defects)


def test_references_of_a_test_image_are_normal_training_images_of_its_category(folder: Path) -> None:
    prepared(*of_folder(folder))
    for sample in rows("test/parts"):
        assert len(set(sample.references)) == 4
        assert all("/bolt/train/good/" in path for path in sample.references)


def test_references_of_a_training_image_stay_in_its_part(folder: Path) -> None:
    prepared(*of_folder(folder))
    for part in PARTS:
        images = {sample.images[-1] for sample in rows(part)}
        assert all(set(sample.references) <= images - {sample.images[-1]} for sample in rows(part))


def test_paths_are_relative_to_the_project_where_the_folder_is(folder: Path) -> None:
    prepared(*of_folder(Path("../images")))
    assert rows("pa_sft")[0].images[0].startswith("../images/bolt/train")


def test_preparing_again_gives_the_same_bytes(folder: Path) -> None:
    prepared(*of_folder(folder))
    before = [path.read_bytes() for path in sorted(Path("data/prepared").rglob("*.jsonl"))]
    prepared(*of_folder(folder))
    assert [path.read_bytes() for path in sorted(Path("data/prepared").rglob("*.jsonl"))] == before


def test_fewer_rows_than_asked_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(*of_folder(folder, pa_sft_rows=1000))
    assert "prepare: pa_sft: 36 rows, 18 normal and 18 defective, fewer than the 1000 asked for" in capsys.readouterr().out


def test_made_data_goes_through_with_the_visibility_it_states() -> None:
    params, work = workspace(
        fetch={"source": "synthetic", "train_images": 48, "test_images": 2},
        prepare={"pa_sft_rows": 6, "sc_grpo_rows": 4, "validation_rows": 2},
    )
    fetched(params, work)
    prepared(params, work)
    stated = json.loads((work.raw / VISIBILITY).read_text())
    for name in (*PARTS, *(f"test/{dataset}" for dataset in params.evaluate.datasets)):
        defects = [sample for sample in rows(name) if sample.anomalous]
        assert len(defects) * 2 == len(rows(name))
        assert all(sample.visibility == stated[Path(sample.images[0]).relative_to(work.raw).as_posix()] for sample in defects)
        assert all(sample.location for sample in defects)


def test_defects_without_a_mask_train_sc_grpo_only(folder: Path) -> None:
    for number in range(12):
        layouts.picture(folder / f"cell/train/good/{number}.png")
        layouts.picture(folder / f"cell/train_defect/defective/{number}.png")
    layouts.picture(folder / "cell/test/good/0.png")
    prepared(*of_folder(folder))
    assert {sample.category for part in ("pa_sft", "validation") for sample in rows(part)} == {"bolt"}
    bare = [sample for sample in rows("sc_grpo") if sample.category == "cell" and sample.anomalous]
    assert bare
    assert all(sample.location is None and sample.type is None for sample in bare)


def test_a_type_can_be_stated_for_a_folder_whose_name_states_none(folder: Path) -> None:
    (folder / "bolt/train_defect/scratch").rename(folder / "bolt/train_defect/mixed")
    (folder / "bolt/train_defect_ground_truth/scratch").rename(folder / "bolt/train_defect_ground_truth/mixed")
    prepared(*of_folder(folder, train={"parts": {"layout": "mvtec", "folder": ".", "types": {"mixed": "damage"}}}))
    assert {sample.type for sample in rows("pa_sft") if sample.anomalous} == {"damage"}


def test_images_are_excluded_by_id(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = "parts/bolt/train/good/003"
    prepared(*of_folder(folder, train={"parts": {"layout": "mvtec", "folder": ".", "exclude": [known]}}))
    assert not any(sample.id == known for part in PARTS for sample in rows(part))
    assert "parts: 1 images are left out: the parameters exclude them." in caplog.text


def test_known_errors_of_a_benchmark_are_left_out_with_their_reason(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/good/000", "image/good/000", "image/good/021", "image/good/022", "image/color/000"):
        layouts.picture(folder / "mvtec/pill" / f"{name}.png")
    layouts.mask(folder / "mvtec/pill/mask/color/000.png")
    params, work = of_folder(folder)
    source = {"mvtec": Source(layout="ds_mvtec", folder="mvtec")}
    prepared(replace(params, evaluate=params.evaluate.model_copy(update={"datasets": source})), work)
    assert [sample.id for sample in rows("test/mvtec")] == ["mvtec/pill/test/color/000", "mvtec/pill/test/good/022"]
    assert "mvtec: 2 images are left out: shows a metal nut, not a pill (github.com/jam-cc/MMAD, issues 15 and 19)." in caplog.text


# --- what people decided about chains --------------------------------------------------------------------------------------------------


def read_by(reviewer: str, verdict: str, sample: Sample, chain: str = "") -> None:
    """A decision of a reviewer, kept as the review page keeps it."""
    row = {"id": sample.id, "chain": sample.reasoning, "fault": None}
    record(Path("reviews"), reviewer, [decide(row, verdict, chain=chain)])


def test_rejected_chains_are_not_learned_and_edited_ones_as_edited(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(*of_folder(folder))
    rejected, edited, disputed, sound = rows("pa_sft")[:4]
    read_by("ann", "reject", rejected)
    read_by("ann", "edit", edited, chain=f"{edited.reasoning} all of this can be seen.")
    read_by("ann", "accept", disputed)
    read_by("bob", "reject", disputed)
    read_by("bob", "accept", sound)
    read_by("bob", "reject", replace(sound, id="parts/bolt/train/good/gone"))
    prepared(*of_folder(folder, reviews="reviews"))
    learned = {sample.id: sample.reasoning for sample in rows("pa_sft")}
    assert {rejected.id, disputed.id}.isdisjoint(learned)
    assert (learned[edited.id], learned[sound.id]) == (f"{edited.reasoning} all of this can be seen.", sound.reasoning)
    told = "prepare: reviews: 2 chains are rejected, 1 are edited; 1 decisions are about other texts, and count for nothing."
    assert told in capsys.readouterr().out


def test_gates_judge_what_people_wrote(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(*of_folder(folder))
    edited = next(sample for sample in rows("pa_sft") if not sample.anomalous)
    read_by("ann", "edit", edited, chain=f"{edited.reasoning} the reference image shows the same.")
    prepared(*of_folder(folder, reviews="reviews"))
    assert edited.id not in {sample.id for sample in rows("pa_sft")}
    assert "prepare: gate reference_mention: 1 chains" in capsys.readouterr().out


def test_reviews_that_are_not_there_are_named(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"prepare.reviews: no decisions in nowhere. Make some with `iadr1 expert-ad review`"):
        prepared(*of_folder(folder, reviews="nowhere"))


def test_an_id_to_exclude_must_exist(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"ids to exclude that no image has \(1\):\n  parts/typo"):
        prepared(*of_folder(folder, train={"parts": {"layout": "mvtec", "folder": ".", "exclude": ["parts/typo"]}}))


def unreadable(folder: Path) -> None:
    for path in sorted((folder / "bolt/train_defect/scratch").iterdir()):
        path.write_bytes(b"no image")


def masks_of_another_size(folder: Path) -> None:
    layouts.mask(folder / "bolt/ground_truth/hole/001_mask.png", side=30)


def empty_mask(folder: Path) -> None:
    layouts.mask(folder / "bolt/ground_truth/hole/002_mask.png", empty=True)


def no_normal_image(folder: Path) -> None:
    shutil.rmtree(folder / "bolt/train/good")


def no_normal_test_image(folder: Path) -> None:
    shutil.rmtree(folder / "bolt/test/good")


def no_defects_to_train_on(folder: Path) -> None:
    shutil.rmtree(folder / "bolt/train_defect")


def no_test_images(folder: Path) -> None:
    shutil.rmtree(folder / "bolt/test")


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "harm, message",
    [
        (unreadable, r"images or masks that cannot be used \(10\):\n(  .*png: cannot be read as an image .*\n){10}Replace or remove"),
        (masks_of_another_size, r"\(1\):\n  .*001_mask.png: 30x30 pixels, but its image .*001.png has 24x24"),
        (empty_mask, r"masks of defective images that mark nothing \(1\):\n  .*002_mask.png\nCorrect the masks"),
        (no_normal_image, r"prepare.train: categories without normal images \(1\):\n  parts/bolt\nAdd normal images"),
        (no_normal_test_image, r"evaluate.datasets: categories without normal images \(1\):\n  parts/bolt"),
        (no_defects_to_train_on, r"no defective images among 30 for training in parts. Put defects .* into CATEGORY/train_defect/TYPE"),
        (no_test_images, r"evaluate.datasets.parts: no test images in .*images. Add them"),
        (gone, r"parts: no folder .*images. Run `dvc repro fetch`, or correct the folder"),
    ],
)  # fmt: skip
def test_unfit_data_is_named_before_anything_is_written(folder: Path, harm: object, message: str) -> None:
    harm(folder)  # type: ignore[operator]
    with pytest.raises(DatasetError, match=message):
        prepared(*of_folder(folder))
    assert not Path("data").exists()


def test_views_that_do_not_show_the_defect_are_left_out_of_multi_view_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layouts.real_iad(tmp_path / "images")
    layouts.mask(tmp_path / "images/bolt/NG/scratch/S0002/bolt_C2_mask.png", empty=True)
    layouts.parts(tmp_path / "images" / "parts")
    source = {"layout": "real_iad", "folder": "."}
    params, work = of_folder(tmp_path / "images", train={"made": source}, pa_sft_rows=4, sc_grpo_rows=0, validation_rows=0)
    params = params.__class__(**{**params.__dict__, "evaluate": params.evaluate.model_copy(update={"datasets": {}})})
    prepared(params, work)
    assert "1 views of defective parts do not show the defect" in capsys.readouterr().out
    assert sum(sample.anomalous for sample in rows("pa_sft")) == 1


def test_many_images_are_shared_by_processes_and_come_back_in_order() -> None:
    numbers = list(range(-FEW, FEW))
    assert (
        list(each(abs, numbers, doing="counting"))
        == list(each(abs, numbers, doing="counting", waits=True))
        == [abs(number) for number in numbers]
    )
