"""The entries of other projects' files, as they are checked on reading and published in iadr1/schemas: where one text or a list may stand, a list.

Keys beyond these are kept. `iadr1` holds, as JSON, what the form has no place for.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter


def _as_list(value: Any) -> Any:
    """A list of paths from what the original files have: one path, a list, or {"path": …}."""
    values = value if isinstance(value, list) else [value]
    return [item["path"] if isinstance(item, dict) and item.keys() == {"path"} else item for item in values]


Paths = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]


class Entry(BaseModel):
    """Any entry."""

    model_config = ConfigDict(extra="allow", strict=True)


class Meta(Entry):
    """An image in meta.json, below its category."""

    img_path: str
    mask_path: str | None = ""
    cls_name: str
    specie_name: str
    anomaly: Literal[0, 1]


class Question(Entry):
    """One question with its options; `Answer` is the letter of the right one."""

    Question: str
    Answer: str
    Options: dict[str, str]
    type: str


class Test(Entry):
    """An image in a test list, under its path."""

    image_path: str
    conversation: Annotated[list[Question], Field(min_length=1)]
    similar_templates: list[str] = []
    random_templates: list[str] = []


class Mmad(Test):
    """An image in MMAD's list, under its path."""

    mask_path: str | None = None


class Message(Entry):
    """One turn of a conversation; `<image>` stands for the next image."""

    role: Literal["system", "user", "assistant"]
    content: str


class PaSft(Entry):
    """A row of PA-SFT: references first, the query image last."""

    images: Paths
    messages: Annotated[list[Message], Field(min_length=2)]


class ScGrpo(Entry):
    """A row of SC-GRPO: references first, the query image last."""

    id: str | int
    image: Paths
    problem: str
    solution: str


class Columns(Entry):
    """Which columns of a file hold what."""

    messages: str = "messages"
    images: str = "images"


class LlamaFactory(Entry):
    """A data set in LLaMA-Factory's dataset_info.json, under its name."""

    file_name: str
    formatting: Literal["sharegpt"] = "sharegpt"
    columns: Columns = Columns()
    tags: dict[str, str] = {}


FILES: dict[str, Any] = {
    "meta": dict[str, list[Meta] | dict[str, list[Meta]]],
    "test": dict[str, Test],
    "mmad": dict[str, Mmad],
    "pa_sft": list[PaSft],
    "sc_grpo": list[ScGrpo],
    "llamafactory": dict[str, LlamaFactory],
}


def schema_text(form: str) -> str:
    """The JSON Schema of a form's file."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": form}
    return json.dumps(head | TypeAdapter(FILES[form]).json_schema(), indent=1) + "\n"
