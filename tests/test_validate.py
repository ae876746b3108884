"""validate finds every kind of fault, names the rows, and passes sound data."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iadr1.errors import DatasetError
from iadr1.params import Params
from iadr1.samples import Sample, read_samples, write_samples
from tasks._manifest import Entry, read_manifest, write_manifest
from tasks._run import Workspace
from tasks._tables import listing, tables
from tasks.fetch import fetched
from tasks.prepare import prepared
from tasks.validate import main, refuse_errors, validated
from tests import layouts
from tests.stages import of_folder

Parts = dict[str, list[Sample]]


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Params, Workspace]:
    """A workspace whose prepared data is sound."""
    layouts.parts(tmp_path / "images", normal=20, defects=12)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    params, work = of_folder(tmp_path / "images")
    fetched(params, work)
    prepared(params, work)
    return params, work


def parts_of(work: Workspace) -> Parts:
    files = sorted(work.prepared.rglob("*.jsonl"))
    return {file.relative_to(work.prepared).with_suffix("").as_posix(): read_samples(file) for file in files}


def defect(rows: list[Sample]) -> int:
    """The place of a defective row."""
    return next(place for place, sample in enumerate(rows) if sample.anomalous)


def normal(rows: list[Sample]) -> int:
    """The place of a normal row."""
    return next(place for place, sample in enumerate(rows) if not sample.anomalous)


# Each plants one fault and returns the part and the id of a row that must be named.
def image_is_gone(parts: Parts) -> tuple[str, str]:
    sample = parts["pa_sft"][0]
    parts["pa_sft"][0] = replace(sample, images=("gone.png",))
    return "pa_sft", sample.id


def image_is_broken(parts: Parts) -> tuple[str, str]:
    sample = parts["test/parts"][0]
    Path(sample.images[0]).write_bytes(b"\x89PNG\r\n\x1a\n")
    return "test/parts", sample.id


def image_is_blank(parts: Parts) -> tuple[str, str]:
    place = normal(parts["sc_grpo"])
    sample = parts["sc_grpo"][place]
    parts["sc_grpo"][place] = replace(sample, images=(str(layouts.picture(Path("blank.png"), grey=0)),))
    return "sc_grpo", sample.id


def mask_has_another_size(parts: Parts) -> tuple[str, str]:
    sample = parts["pa_sft"][defect(parts["pa_sft"])]
    layouts.mask(Path(str(sample.mask)), side=99)
    return "pa_sft", sample.id


def mask_is_empty(parts: Parts) -> tuple[str, str]:
    sample = parts["validation"][defect(parts["validation"])]
    layouts.mask(Path(str(sample.mask)), empty=True)
    return "validation", sample.id


def mask_is_gone(parts: Parts) -> tuple[str, str]:
    sample = parts["test/parts"][defect(parts["test/parts"])]
    Path(str(sample.mask)).unlink()
    return "test/parts", sample.id


def changed(part: str, pick: Callable[[list[Sample]], int], **fields: object) -> Callable[[Parts], tuple[str, str]]:
    """A fault that is a changed field of one row."""

    def harm(parts: Parts) -> tuple[str, str]:
        place = pick(parts[part])
        parts[part][place] = replace(parts[part][place], **fields)  # type: ignore[arg-type]
        return part, parts[part][place].id

    return harm


def query_is_its_reference(parts: Parts) -> tuple[str, str]:
    sample = parts["test/parts"][0]
    parts["test/parts"][0] = replace(sample, references=(*sample.references, sample.images[0]))
    return "test/parts", sample.id


def physical_sample_is_in_two_parts(parts: Parts) -> tuple[str, str]:
    parts["pa_sft"][0] = replace(parts["pa_sft"][0], physical="plate 7")
    parts["sc_grpo"][0] = replace(parts["sc_grpo"][0], physical="plate 7")
    return "pa_sft", parts["pa_sft"][0].id


def training_image_is_in_a_test_set(parts: Parts) -> tuple[str, str]:
    copied = Path(parts["test/parts"][0].images[0])
    copied.write_bytes(Path(parts["sc_grpo"][0].images[0]).read_bytes())
    return "test/parts", parts["test/parts"][0].id


def training_image_is_in_a_test_set_encoded_again(parts: Parts) -> tuple[str, str]:
    target = Path(parts["test/parts"][0].images[0])
    with Image.open(parts["sc_grpo"][0].images[0]) as image:
        image.convert("RGB").point(lambda level: min(255, level + 1)).save(target)
    return "test/parts", parts["test/parts"][0].id


def reference_is_a_copy_of_the_query(parts: Parts) -> tuple[str, str]:
    sample = parts["test/parts"][0]
    Path("copy.png").write_bytes(Path(sample.images[0]).read_bytes())
    parts["test/parts"][0] = replace(sample, references=("copy.png",))
    return "test/parts", sample.id


def reference_shows_a_defect(parts: Parts) -> tuple[str, str]:
    rows = parts["pa_sft"]
    place = normal(rows)
    rows[place] = replace(rows[place], references=(rows[defect(rows)].images[0],))
    return "pa_sft", rows[place].id


def reference_is_a_test_image(parts: Parts) -> tuple[str, str]:
    tests = parts["test/parts"]
    parts["pa_sft"][0] = replace(parts["pa_sft"][0], references=(tests[normal(tests)].images[0],))
    return "pa_sft", parts["pa_sft"][0].id


def reference_shows_another_product(parts: Parts) -> tuple[str, str]:
    rows = parts["sc_grpo"]
    place = normal(rows)
    other = next(number for number, sample in enumerate(rows) if not sample.anomalous and number != place)
    rows[other] = replace(rows[other], category="nut")
    rows[place] = replace(rows[place], references=rows[other].images)
    return "sc_grpo", rows[place].id


def reference_serves_two_products(parts: Parts) -> tuple[str, str]:
    rows = parts["test/parts"]
    rows[0] = replace(rows[0], category="nut", references=rows[1].references)
    return "test/parts", rows[1].id


FAULTS = [
    (image_is_gone, "image_problem", "no such file"),
    (image_is_broken, "image_problem", "cannot be read as an image"),
    (image_is_blank, "image_problem", "every pixel is the same"),
    (mask_has_another_size, "mask_problem", "99x99 pixels, its image 24x24"),
    (mask_is_empty, "mask_problem", "marks nothing"),
    (mask_is_gone, "mask_problem", "no such file"),
    (changed("sc_grpo", defect, location="somewhere"), "annotation_problem", "location 'somewhere' names no place"),
    (changed("sc_grpo", defect, type="bad luck"), "annotation_problem", "type 'bad luck' is not in the taxonomy"),
    (changed("sc_grpo", normal, type="scratch"), "annotation_problem", "is normal, but has scratch"),
    (changed("pa_sft", defect, location=None), "chain_problem", "explains a defect without location"),
    (changed("pa_sft", defect, type="hole"), "chain_problem", "but the defect is of type hole"),
    (
        changed("pa_sft", normal, reasoning="as in the reference image, all is well."),
        "chain_problem",
        "speaks of an image that the model will not see",
    ),
    (changed("pa_sft", normal, reasoning="well.</think><answer>Yes</answer>"), "target_problem", "a block cannot hold one of the tags"),
    (changed("test/parts", normal, references=("gone.png",)), "reference_problem", "no file gone.png"),
    (query_is_its_reference, "reference_problem", "is its own reference"),
    (reference_is_a_copy_of_the_query, "reference_problem", "is its own reference"),
    (reference_shows_a_defect, "reference_problem", "shows a defect"),
    (reference_is_a_test_image, "reference_problem", "is an image of test/parts"),
    (reference_shows_another_product, "reference_problem", "shows another product: parts/nut"),
    (reference_serves_two_products, "reference_problem", "is also a reference for another product: parts/nut"),
    (changed("pa_sft", normal, anomalous="no"), "schema_problem", "anomalous: Input should be a valid boolean; found 'no'"),
    (changed("sc_grpo", normal, reasoning=5), "schema_problem", "reasoning: Input should be a valid string; found 5"),
    (changed("test/parts", normal, images=()), "schema_problem", "images: is empty"),
    (changed("sc_grpo", defect, location="<answer>No</answer>"), "target_problem", "a block cannot hold one of the tags"),
    (training_image_is_in_a_test_set_encoded_again, "look_alike_in", "sc_grpo"),
    (physical_sample_is_in_two_parts, "physical_sample_also_in", "sc_grpo"),
    (training_image_is_in_a_test_set, "image_also_in", "sc_grpo"),
]


@pytest.mark.parametrize(("harm", "column", "said"), FAULTS)
def test_each_fault_is_said_in_its_column(
    sound: tuple[Params, Workspace], harm: Callable[[Parts], tuple[str, str]], column: str, said: str
) -> None:
    parts = parts_of(sound[1])
    part, harmed = harm(parts)
    row = next(row for row in tables(parts, grid=3, layouts={})[part] if row["id"] == harmed)
    assert said in str(row[column])


def test_sound_rows_have_no_fault(sound: tuple[Params, Workspace]) -> None:
    found = tables(parts_of(sound[1]), grid=3, layouts={})
    faults = {column for _, column, _ in FAULTS}
    assert {row[column] for rows in found.values() for row in rows for column in faults} == {None}


def test_a_known_error_of_a_benchmark_is_a_warning_with_its_reason(sound: tuple[Params, Workspace]) -> None:
    parts = parts_of(sound[1])
    place = normal(parts["test/parts"])
    parts["test/parts"][place] = replace(parts["test/parts"][place], id="parts/pill/test/good/007")
    said = {row["known_error"] for row in tables(parts, grid=3, layouts={"parts": "ds_mvtec"})["test/parts"]}
    assert said == {None, "shows a metal nut, not a pill (github.com/jam-cc/MMAD, issues 15 and 19)"}
    assert {row["known_error"] for row in tables(parts, grid=3, layouts={"parts": "mvtec"})["test/parts"]} == {None}


def test_files_of_the_raw_data_are_listed_with_what_is_odd_about_them(tmp_path: Path) -> None:
    entries = [Entry("a.png", 0, "a" * 64), Entry("B.png", 1, "b" * 64), Entry("b.PNG", 1, "c" * 64), Entry("c\n.png", 1, "d" * 64)]
    entries.append(Entry("d" * 256, 1, "e" * 64))
    write_manifest(tmp_path / "raw_manifest.csv", entries)
    assert [(row["bytes"], row["name_problem"]) for row in listing(tmp_path / "raw_manifest.csv")] == [
        (0, None),
        (1, "differs from another in upper and lower case only"),
        (1, "differs from another in upper and lower case only"),
        (1, "has characters that cannot be shown"),
        (1, "has a name of more than 255 bytes"),
    ]


def test_a_folder_of_raw_data_is_listed_as_its_manifest_would_be(sound: tuple[Params, Workspace]) -> None:
    params, work = sound
    assert listing(work.raw) == listing(Path(params.experiment.fetched))


def test_raw_data_that_was_not_fetched_is_named(sound: tuple[Params, Workspace]) -> None:
    Path(sound[0].experiment.fetched).unlink()
    with pytest.raises(DatasetError, match=r"raw_manifest.csv: no such file. Run `dvc repro fetch`"):
        validated(*sound)


def test_an_odd_file_of_the_raw_data_is_a_warning(sound: tuple[Params, Workspace]) -> None:
    params, work = sound
    manifest = Path(params.experiment.fetched)
    entries = read_manifest(manifest)
    write_manifest(
        manifest, [*entries, replace(entries[0], path="BOLT/" + entries[0].path.partition("/")[2]), Entry("none.png", 0, "e" * 64)]
    )
    report = validated(params, work)
    assert report["passed"]
    assert [(finding["table"], finding["check"], finding["severity"]) for finding in report["findings"]] == [
        ("raw", "files are not empty", "warning"),
        ("raw", "names can be kept on every system", "warning"),
    ]


def test_warnings_are_carried_into_mlflow(mlflow_store: Path, sound: tuple[Params, Workspace]) -> None:
    import mlflow

    params, work = sound
    manifest = Path(params.experiment.fetched)
    write_manifest(manifest, [*read_manifest(manifest), Entry("none.png", 0, "e" * 64)])
    main(params, work)
    (run,) = mlflow.search_runs(experiment_names=["iadr1"], filter_string="tags.stage = 'validate'", output_format="list")
    assert (run.data.metrics["warnings"], run.data.metrics["errors"]) == (1.0, 0.0)
    assert run.data.tags["warnings"] == "raw: expected that files are not empty; found 1 rows.\n  none.png: 0"
    report = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/validation.json")
    assert [finding["check"] for finding in report["findings"]] == ["files are not empty"]


def test_an_image_in_two_test_sets_is_no_leak(sound: tuple[Params, Workspace]) -> None:
    parts = parts_of(sound[1])
    parts["test/other"] = [replace(sample, id=sample.id.replace("parts", "other", 1)) for sample in parts["test/parts"]]
    assert {row["image_also_in"] for row in tables(parts, grid=3, layouts={})["test/other"]} == {None}


def test_sound_data_passes_and_the_report_is_the_same_again(sound: tuple[Params, Workspace]) -> None:
    params, work = sound
    report = validated(params, work)
    refuse_errors(report, work)
    assert report["passed"]
    assert report["tables"]["pa_sft"] == {"rows": 10, "anomalous": 5}
    index = (work.reports / "data_docs" / "index.html").read_text()
    (page,) = (work.reports / "data_docs" / "validations" / "pa_sft").rglob("*.html")
    assert all(f">{table}</a></td>" in index for table in ("raw", "pa_sft", "sc_grpo", "validation", "test/parts"))
    assert page.relative_to(work.reports / "data_docs").as_posix() in index and index.count("<td>nothing</td>") == 5
    assert "The mask has the size of its image and marks something." in page.read_text()
    assert "0 of 10 rows have this fault" in page.read_text()
    before = (work.reports / "validation.json").read_bytes()
    validated(params, work)
    assert (work.reports / "validation.json").read_bytes() == before
    assert json.loads(before) == report


def test_planted_faults_are_all_found_and_stop_the_chain_with_their_rows_named(sound: tuple[Params, Workspace]) -> None:
    params, work = sound
    parts = parts_of(work)
    planted = [image_is_gone, mask_is_empty, query_is_its_reference, physical_sample_is_in_two_parts, training_image_is_in_a_test_set]
    harmed = [harm(parts) for harm in planted]
    parts["sc_grpo"].append(parts["sc_grpo"][1])
    for part, rows in parts.items():
        write_samples(work.prepared / f"{part}.jsonl", rows)
    report = validated(params, work)
    failed = {(finding["table"], finding["check"], finding["severity"]) for finding in report["findings"]}
    assert ("sc_grpo", "ids are unique", "error") in failed
    assert ("sc_grpo", "no image is there twice", "warning") in failed
    with pytest.raises(DatasetError) as refused:
        refuse_errors(report, work)
    message = str(refused.value)
    assert "the data is not fit to train on" in message
    assert "data_docs/index.html" in message
    assert all(f"\n{part}: expected that" in message and sample_id in message for part, sample_id in harmed)
    assert "no image is there twice" not in message  # a warning stops nothing
    index = (work.reports / "data_docs" / "index.html").read_text()
    assert all(sample_id in index for _, sample_id in harmed) and "warning: sc_grpo: expected that no image is there twice" in index


def test_too_few_rows_and_one_label_only_are_refused(sound: tuple[Params, Workspace]) -> None:
    params, work = sound
    write_samples(work.prepared / "pa_sft.jsonl", [])
    write_samples(work.prepared / "sc_grpo.jsonl", [sample for sample in parts_of(work)["sc_grpo"] if not sample.anomalous])
    with pytest.raises(DatasetError) as refused:
        refuse_errors(validated(params, work), work)
    assert "pa_sft: expected that there are at least 4 rows; found 0." in str(refused.value)
    assert "sc_grpo: expected that normal and defective images have a share of at least 0.2 each; found 0.0." in str(refused.value)


def test_chains_are_there_where_they_are_asked_for_and_nowhere_else(sound: tuple[Params, Workspace]) -> None:
    params, work = sound
    answers_only = replace(params, prepare=params.prepare.model_copy(update={"chains": "answers_only"}))
    for told, made_for, check in (
        (answers_only, params, "no row has a chain of thought, because prepare.chains is answers_only"),
        (params, answers_only, "every row has a chain of thought"),
        (answers_only, answers_only, None),
    ):
        prepared(made_for, work)
        errors = {(found["table"], found["check"]) for found in validated(told, work)["findings"] if found["severity"] == "error"}
        assert errors == ({("pa_sft", check), ("validation", check)} if check else set())


def test_a_test_set_of_one_label_is_a_warning(sound: tuple[Params, Workspace]) -> None:
    params, work = sound
    write_samples(work.prepared / "test/parts.jsonl", [sample for sample in parts_of(work)["test/parts"] if sample.anomalous])
    (finding,) = validated(params, work)["findings"]
    assert (finding["table"], finding["severity"], finding["found"]) == ("test/parts", "warning", "1.0")


def test_prepared_data_that_is_missing_is_named(sound: tuple[Params, Workspace]) -> None:
    params, work = sound
    (work.prepared / "sc_grpo.jsonl").unlink()
    with pytest.raises(DatasetError, match=r"sc_grpo.jsonl: no such file. Run `dvc repro prepare`"):
        validated(params, work)


def test_images_of_every_mode_are_read(sound: tuple[Params, Workspace]) -> None:
    parts = parts_of(sound[1])
    for place, mode in enumerate(("1", "L", "P", "RGBA", "CMYK")):
        path = Path(f"{mode}.tif")
        Image.fromarray(np.random.default_rng(place).integers(0, 255, (24, 24, 3), np.uint8)).convert(mode).save(path)
        parts["pa_sft"][place] = replace(parts["pa_sft"][place], images=(str(path),))
    assert {row["image_problem"] for row in tables(parts, grid=3, layouts={})["pa_sft"]} == {None}
