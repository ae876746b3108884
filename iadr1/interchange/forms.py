"""One entry of each foreign form to a sample and back: a record a form, and a line in `FORMS`."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from iadr1 import prompts
from iadr1.datasets.folders import NORMAL, type_of
from iadr1.errors import DatasetError
from iadr1.samples import Sample
from iadr1.verdict import Verdict, word_answer

SPLITS = ("train", "test")
DETECTION = "Anomaly Detection"
OPTIONS = {"A": "Yes.", "B": "No."}
MMAD_QUESTION = "Is there any defect in the object?"

Raw = dict[str, Any]
Where = Mapping[str, str]  # what stands around an entry: dataset, category, split


@dataclass(frozen=True, slots=True)
class Form:
    """A foreign file: its entries and what stands around them, an entry as a sample, a sample as an entry, and entries as a file."""

    entries: Callable[[Any], Iterator[tuple[Where, Raw]]]
    sample: Callable[[Raw, Where], Sample]
    entry: Callable[[Sample, int], Raw]
    content: Callable[[Iterable[tuple[Sample, Raw]]], Any]


def _meta_entries(content: Mapping[str, Any]) -> Iterator[tuple[Where, Raw]]:
    nested = bool(content) and all(isinstance(value, dict) for value in content.values())
    for split, categories in content.items() if nested else [("test", content)]:
        for category, entries in categories.items():
            yield from (({"category": category, "split": split}, entry) for entry in entries)


def _meta_sample(entry: Raw, where: Where) -> Sample:
    anomalous, kind = bool(entry["anomaly"]), entry["specie_name"]
    return _sample(
        entry["img_path"], where, anomalous=anomalous, kind=kind, mask=entry.get("mask_path") or None,
        type_=type_of(kind) if anomalous else None, split="test",
    )  # fmt: skip


def _meta_entry(sample: Sample, shots: int) -> Raw:
    return {
        "img_path": sample.images[-1],
        "mask_path": sample.mask or "",
        "cls_name": sample.category,
        "specie_name": _kind(sample),
        "anomaly": int(sample.anomalous),
    }


def _meta_content(entries: Iterable[tuple[Sample, Raw]]) -> Any:
    """By category where there is only a test, else by split and category."""
    splits: dict[str, dict[str, list[Raw]]] = defaultdict(lambda: defaultdict(list))
    for sample, entry in entries:
        splits[split_named(sample)][sample.category].append(entry)
    return splits["test"] if splits.keys() <= {"test"} else splits


def _listed_entries(content: Mapping[str, Raw]) -> Iterator[tuple[Where, Raw]]:
    for path, entry in content.items():
        if entry["image_path"] != path:
            raise DatasetError(f"{path}: its image_path is {entry['image_path']}. Both have to be the same.")
        yield {}, entry


def _test_sample(entry: Raw, where: Where) -> Sample:
    asked = [question for question in entry["conversation"] if question["type"] == DETECTION]
    answers = {word_answer(question["Options"].get(question["Answer"], ""))[0] for question in asked}
    if len(answers) != 1 or None in answers:
        raise DatasetError(
            f"{entry['image_path']}: needs a question of type {DETECTION!r} whose answer is the letter of yes or no; "
            f"found {[(question['type'], question['Answer']) for question in entry['conversation']]}."
        )
    anomalous, kind = bool(answers.pop()), PurePosixPath(entry["image_path"]).parent.name
    return _sample(
        entry["image_path"], where, anomalous=anomalous, kind=kind, split="test", references=entry.get("random_templates", ()),
        mask=entry.get("mask_path") or None if anomalous else None, type_=type_of(kind) if anomalous else None,
    )  # fmt: skip


def _test_entry(sample: Sample, shots: int, *, question: str = prompts.question) -> Raw:
    asked = {"Question": question, "Answer": "A" if sample.anomalous else "B", "Options": dict(OPTIONS), "type": DETECTION}
    return {
        "image_path": sample.images[-1],
        "conversation": [asked],
        "similar_templates": [],
        "random_templates": list(sample.references),
    }


def _mmad_entry(sample: Sample, shots: int) -> Raw:
    return _test_entry(sample, shots, question=MMAD_QUESTION) | {"mask_path": sample.mask}


def _by_image(entries: Iterable[tuple[Sample, Raw]]) -> Any:
    content: dict[str, Raw] = {}
    for sample, entry in entries:
        if entry["image_path"] in content:
            raise DatasetError(f"{sample.id}: its image {entry['image_path']} is listed twice, and this form has one entry an image.")
        content[entry["image_path"]] = entry
    return content


def _row_entries(content: Sequence[Raw]) -> Iterator[tuple[Where, Raw]]:
    yield from (({}, entry) for entry in content)


def _rows(entries: Iterable[tuple[Sample, Raw]]) -> Any:
    return [entry for _, entry in entries]


def _pa_sft_sample(entry: Raw, where: Where) -> Sample:
    said = [message["content"] for message in entry["messages"] if message["role"] == "assistant"]
    return _trained_on(entry["images"], said[-1] if said else "", where)


def _pa_sft_entry(sample: Sample, shots: int) -> Raw:
    (asked,) = prompts.messages(sample, shots=shots)
    parts = [part["text"] if part["type"] == "text" else "<image>" for part in asked["content"]]
    said = prompts.gold(sample).render()
    return {
        "images": [*sample.references[:shots], sample.images[-1]],
        "messages": [{"role": "user", "content": "\n".join(parts)}, {"role": "assistant", "content": said}],
    }


def _sc_grpo_sample(entry: Raw, where: Where) -> Sample:
    return _trained_on(entry["image"], entry["solution"], {**where, "id": str(entry["id"])})


def _sc_grpo_entry(sample: Sample, shots: int) -> Raw:
    gold = prompts.gold(sample)
    solution = Verdict(gold.anomalous, gold.location, gold.type).render()
    images = [*sample.references[:shots], sample.images[-1]]
    return {"id": sample.id, "image": images, "problem": prompts.question, "solution": solution}


def _trained_on(images: Sequence[str], text: str, where: Where) -> Sample:
    """A sample of a training row: what its text says is its annotation."""
    verdict = Verdict.parse(text)
    if verdict.anomalous is None:
        raise DatasetError(f"{images[-1]}: a row ends with <answer>Yes</answer> or <answer>No</answer>; found {text[-80:]!r}.")
    said = {"location": verdict.location, "type_": verdict.type} if verdict.anomalous else {}
    annotation = {name: word if word != prompts.UNSPECIFIED else None for name, word in said.items()}
    kind = PurePosixPath(images[-1]).parent.name
    return _sample(
        images[-1], where, anomalous=verdict.anomalous, kind=kind, split="train", references=images[:-1], reasoning=verdict.reasoning, **annotation
    )  # fmt: skip


def _sample(
    image: str, where: Where, *, anomalous: bool, kind: str, split: str, mask: str | None = None, type_: str | None = None,
    location: str | None = None, reasoning: str | None = None, references: Sequence[str] = (),
) -> Sample:  # fmt: skip
    """A sample named by its path, DATASET/CATEGORY/…/KIND/NAME, where nothing else names it."""
    path = PurePosixPath(image)
    above = [part for part in path.parts[:-1] if part not in ("/", ".", "..")]
    named = above[1] if len(above) > 2 and above[1] not in SPLITS else above[0] if above else "part"
    category = where.get("category") or named
    dataset = where.get("dataset") or (above[0] if above else "data")
    made = "/".join([dataset, category, where.get("split", split), (kind or NORMAL).replace("/", "_"), path.stem])
    given = where.get("id", "")
    return Sample(
        id=given if given.count("/") >= 4 and given.split("/")[2] in SPLITS else made,
        dataset=dataset, category=category, images=(image,), anomalous=anomalous, location=location, type=type_, reasoning=reasoning,
        references=tuple(references), mask=mask,
    )  # fmt: skip


def split_named(sample: Sample) -> str:
    """The split that a sample's id names; test where it names none."""
    parts = sample.id.split("/")
    return parts[2] if len(parts) >= 5 else "test"


def _kind(sample: Sample) -> str:
    parts = sample.id.split("/")
    return parts[3] if len(parts) >= 5 else (sample.type or "defect") if sample.anomalous else NORMAL


FORMS: dict[str, Form] = {
    "meta": Form(_meta_entries, _meta_sample, _meta_entry, _meta_content),
    "test": Form(_listed_entries, _test_sample, _test_entry, _by_image),
    "mmad": Form(_listed_entries, _test_sample, _mmad_entry, _by_image),
    "pa_sft": Form(_row_entries, _pa_sft_sample, _pa_sft_entry, _rows),
    "sc_grpo": Form(_row_entries, _sc_grpo_sample, _sc_grpo_entry, _rows),
}
