"""Other projects' files to samples and back, losing nothing: `iadr1 data convert --from meta meta.json --to test test.json`.

What a form has no place for travels in one more key of its entries, `iadr1`, as JSON; other programs pass over it, and `plain` leaves it out.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from iadr1.datasets import LAYOUTS, samples_of
from iadr1.datasets.folders import inside, json_of
from iadr1.errors import DatasetError
from iadr1.interchange.forms import FORMS, Raw, Where, split_named
from iadr1.interchange.models import FILES
from iadr1.samples import Sample, read_samples, write_lines, write_samples

KEY = "iadr1"
TUPLES = ("images", "references")
SHOWN = {"pa_sft": "images", "sc_grpo": "image"}  # where a row has its references, and the query image after them


@dataclass(frozen=True, slots=True)
class Item:
    """A sample, and what foreign entries say of it beyond that: {form: {key: value}}."""

    sample: Sample
    rest: dict[str, Raw] = field(default_factory=dict)


def read(form: str, path: Path, *, dataset: str | None = None, name: str | None = None) -> list[Item]:
    """The items of a file in a form, or of a folder in a layout; raises DatasetError that names file, entry and key."""
    if form == "samples":
        return [Item(sample) for sample in read_samples(path)]
    if form in LAYOUTS:
        return [Item(sample) for sample in samples_of(form, path, dataset or path.resolve().name)]
    if form == "hf":
        return [Item(sample) for sample in _from_hub_folder(path)]
    if not path.is_file():
        raise DatasetError(f"{path}: no such file.")
    if form == "llamafactory":
        return _read_llamafactory(path, dataset, name)
    return items_of(form, json_of(path), source=str(path), dataset=dataset)


def write(form: str, path: Path, items: Sequence[Item], *, shots: int | None = None, plain: bool = False, name: str | None = None) -> None:
    """Write items as a file in a form, whole or not at all; a training row shows the first `shots` references, or all."""
    if form == "samples":
        write_samples(path, (item.sample for item in items))
    elif form == "hf":
        _to_hub_folder(path, [item.sample for item in items])
    elif form == "llamafactory":
        _write_llamafactory(path, items, shots=shots, plain=plain, name=name or "iadr1")
    else:
        _write_json(path, content_of(form, items, shots=shots, plain=plain))


def dropped(form: str, items: Iterable[Item], *, shots: int | None, plain: bool) -> Counter[str]:
    """How many items have something that this form will not hold: fields of samples, and keys of foreign entries."""
    found = Counter[str]()
    for item in items:
        if form in ("samples", "hf"):
            found.update(f"{other}: {key}" for other, rest in item.rest.items() for key in rest)
        elif plain:
            base = "pa_sft" if form == "llamafactory" else form
            found.update(list(_unseen(base, _plain(base, item.sample, shots), item.sample)))
            found.update(f"{other}: {key}" for other, rest in item.rest.items() if other != base for key in rest)
    return found


def items_of(form: str, content: Any, *, source: str, dataset: str | None = None) -> list[Item]:
    """The items of a form's content."""
    checked = TypeAdapter(FILES[form])
    try:
        content = checked.dump_python(checked.validate_python(content), exclude_unset=True)
    except ValidationError as error:
        problem = error.errors()[0]
        place = "/".join(map(str, problem["loc"]))
        raise DatasetError(f"{source}: {place}: {problem['msg']} (see iadr1/schemas/{form}.json).") from error
    given = {"dataset": dataset} if dataset else {}
    items = [_item(form, entry, {**given, **where}, source) for where, entry in FORMS[form].entries(content)]
    return _with_names_of_their_own(items)


def content_of(form: str, items: Iterable[Item], *, shots: int | None = None, plain: bool = False) -> Any:
    """The content of a form's file."""
    return FORMS[form].content((item.sample, _entry(form, item, shots=shots, plain=plain)) for item in items)


def _item(form: str, raw: Raw, where: Where, source: str) -> Item:
    entry = dict(raw)
    ours = _ours(entry.pop(KEY, None), source)
    try:
        sample = FORMS[form].sample(entry, where)
    except DatasetError as error:
        raise DatasetError(f"{source}: {error}") from error
    told: Raw = {key: tuple(value) if key in TUPLES else value for key, value in ours.get("sample", {}).items()}
    sample = replace(sample, **told)
    known = _plain(form, sample, None if form not in SHOWN else len(entry[SHOWN[form]]) - 1)
    rest = {key: value for key, value in entry.items() if key not in known or known[key] != value}
    return Item(sample, ours.get("rest", {}) | ({form: rest} if rest else {}))


def _ours(text: str | None, source: str) -> Any:
    try:
        return json.loads(text) if text else {}
    except (json.JSONDecodeError, TypeError) as error:
        raise DatasetError(f"{source}: the key {KEY!r} of an entry is not ours ({error}). Remove it.") from error


def _plain(form: str, sample: Sample, shots: int | None) -> Raw:
    try:
        return FORMS[form].entry(sample, len(sample.references) if shots is None else shots)
    except ValueError as error:  # a tag inside of a chain
        raise DatasetError(f"{sample.id}: {error}") from error


def _entry(form: str, item: Item, *, shots: int | None, plain: bool) -> Raw:
    entry = _plain(form, item.sample, shots) | item.rest.get(form, {})
    if plain:
        return entry
    unseen = _unseen(form, entry, item.sample)
    rest = {other: kept for other, kept in item.rest.items() if other != form}
    ours = {key: value for key, value in (("sample", unseen), ("rest", rest)) if value}
    return entry | ({KEY: json.dumps(ours, ensure_ascii=False)} if ours else {})


def _unseen(form: str, entry: Raw, sample: Sample) -> Raw:
    """The fields of a sample that reading its entry does not give back."""
    where = {"category": sample.category, "split": split_named(sample)} if form == "meta" else {}
    ours, back = asdict(sample), asdict(FORMS[form].sample(entry, where))
    return {name: value for name, value in ours.items() if value != back[name]}


def _with_names_of_their_own(items: Sequence[Item]) -> list[Item]:
    """The items, each with an id of its own: paths may differ where names do not."""
    seen = Counter[str]()
    named = []
    for item in items:
        seen[item.sample.id] += 1
        count = seen[item.sample.id]
        named.append(item if count == 1 else replace(item, sample=replace(item.sample, id=f"{item.sample.id}-{count}")))
    return named


def _write_json(path: Path, content: Any) -> None:
    write_lines(path, [json.dumps(content, ensure_ascii=False, indent=1)])


def _read_llamafactory(path: Path, dataset: str | None, name: str | None) -> list[Item]:
    known = json_of(path)
    chosen = name or (next(iter(known)) if isinstance(known, dict) and len(known) == 1 else None)
    if not isinstance(known, dict) or chosen not in known:
        raise DatasetError(f"{path}: name one of its data sets with --name; it has {', '.join(known) or 'none'}.")
    try:
        info = TypeAdapter(FILES["llamafactory"]).validate_python({chosen: known[chosen]})[chosen]
    except ValidationError as error:
        raise DatasetError(f"{path}: {chosen}: {error.errors()[0]['msg']}; only sharegpt's form is read.") from error
    file, columns, tags = inside(path.parent, info.file_name), info.columns, info.tags
    roles = {tags.get(f"{role}_tag", role): role for role in ("user", "assistant", "system")}
    role, said = tags.get("role_tag", "role"), tags.get("content_tag", "content")
    try:
        rows = [
            {
                **{key: value for key, value in row.items() if key not in (columns.messages, columns.images)},
                "images": row[columns.images],
                "messages": [{"role": roles[turn[role]], "content": turn[said]} for turn in row[columns.messages]],
            }
            for row in json_of(file)
        ]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{file}: a row has no {error}, which {path} says it has. Correct one of them.") from error
    return items_of("pa_sft", rows, source=str(file), dataset=dataset)


def _write_llamafactory(path: Path, items: Sequence[Item], *, shots: int | None, plain: bool, name: str) -> None:
    """NAME.json beside dataset_info.json, and its entry there; the other entries stay."""
    known = json_of(path) if path.is_file() else {}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    _write_json(path.with_name(f"{name}.json"), content_of("pa_sft", items, shots=shots, plain=plain))
    _write_json(path, known | {name: {"file_name": f"{name}.json", "formatting": "sharegpt", "columns": columns, "tags": tags}})


def _hub() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DatasetError("the form hf needs the package datasets. Install it with `pip install datasets`.") from error
    return datasets


def _to_hub_folder(path: Path, samples: Sequence[Sample]) -> None:
    if not samples:
        raise DatasetError(f"{path}: there are no samples to write, and `datasets` cannot load a folder without rows.")
    hub = _hub()
    text, number, yes = hub.Value("string"), hub.Value("float64"), hub.Value("bool")
    special = {"images": hub.List(text), "references": hub.List(text), "anomalous": yes, "visibility": number}
    features = hub.Features({each.name: special.get(each.name, text) for each in fields(Sample)})
    columns = {name: [getattr(sample, name) for sample in samples] for name in features}
    hub.Dataset.from_dict(columns, features=features).save_to_disk(str(path))


def _from_hub_folder(path: Path) -> list[Sample]:
    hub = _hub()
    if not (path / "dataset_info.json").is_file():
        raise DatasetError(f"{path}: no data set that `datasets` has saved. Write one with Dataset.save_to_disk.")
    rows = hub.load_from_disk(str(path))
    return [Sample.from_json(json.dumps(row), source=f"{path}:{number}") for number, row in enumerate(rows)]
