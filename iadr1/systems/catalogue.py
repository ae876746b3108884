"""The records of systems.yaml, what each system needs, and whether it can be run here."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from iadr1.errors import ParamsError
from iadr1.params import suggestion
from iadr1.remote.pictures import Pictures
from iadr1.remote.purse import Price

SDKS = {"openai": "openai", "anthropic": "anthropic", "bedrock": "boto3"}
LOCAL = ("checkpoint", "process")
MODELS = Path("models")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provider(_Record):
    """Where models are served: the protocol, the address (or the environment's), any one of `keys`, and all of `needs` from the environment."""

    protocol: Literal["openai", "anthropic", "bedrock"]
    url: str | None = None
    url_from: str | None = None
    keys: list[str]
    needs: list[str] = []


class Priced(_Record):
    """USD for a million tokens on a day, and where that stands."""

    tokens_in: float
    tokens_out: float
    as_of: date
    source: str


class Prompt(_Record):
    """A prompt with places for the image and the references."""

    alone: str
    with_references: str


class System(_Record):
    """One system: who runs it, its name there, what it is shown and asked, what that costs, and its row among the published figures."""

    provider: str
    model: str | None = None
    published: str | None = None
    stage: str = "other"
    images: str | None = None
    prompt: str = "base"
    options: dict[str, Any] = {}
    max_tokens: int = 600
    reply_tokens: int = 5  # what a reply comes to, for the estimate
    price: Priced | None = None
    retired: date | None = None
    note: str | None = None

    @property
    def reader(self) -> Literal["tags", "free"]:
        """How its answers are read: by tags where it was trained to write them."""
        return "tags" if self.prompt == "iad_r1" else "free"


class Catalogue(_Record):
    """Everything in systems.yaml."""

    providers: dict[str, Provider]
    images: dict[str, Pictures]
    prompts: dict[str, Prompt]
    systems: dict[str, System]

    def system(self, name: str) -> System:
        """The system of a name; raises ParamsError."""
        if name not in self.systems:
            raise ParamsError(f"{name} is no system of `iadr1 systems`; {suggestion(name, self.systems)}")
        return self.systems[name]

    def pictures(self, system: System) -> Pictures:
        """What the provider of a system looks at."""
        return self.images[system.images] if system.images else Pictures()

    def price(self, system: System) -> Price:
        """The price of a system, nothing for one that runs here."""
        return Price(system.price.tokens_in, system.price.tokens_out) if system.price else Price()


def catalogue(changes: Path | None = None) -> Catalogue:
    """The shipped catalogue with a file of changes over it, key by key; raises ParamsError that names the first key that is wrong."""
    raw = _shipped()
    if changes is not None:
        raw = _over(raw, _read(changes))
    try:
        return Catalogue.model_validate(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ParamsError(f"{changes}: {place}: {problem['msg']}. docs/systems.md lists the keys.") from error


@cache
def _shipped() -> dict[str, Any]:
    found = yaml.safe_load(files("iadr1.systems").joinpath("systems.yaml").read_text(encoding="utf-8"))
    return dict(found)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: no such file.") from error
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not YAML ({' '.join(str(error).split())[:120]}).") from error
    if not isinstance(found, dict):
        raise ParamsError(f"{path}: holds no keys. It changes systems.yaml key by key, such as systems: {{gpt-4o: {{price: …}}}}.")
    return found


def _over(below: Any, above: Any) -> Any:
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: _over(below.get(key), value) for key, value in above.items()}}


@dataclass(frozen=True, slots=True)
class Standing:
    """A system as `iadr1 systems` tells it: `missing` is what stands between it and a run, empty when it can be run here and now."""

    name: str
    row: str | None
    paper: float | None
    provider: str
    model: str | None
    key: str
    sdk: str
    price: str
    images: str
    prompt: str
    missing: list[str]
    command: str
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def standing(found: Catalogue, name: str, environment: Mapping[str, str], today: date) -> Standing:
    """What a system needs, and what of it is missing here."""
    system = found.system(name)
    provider = found.providers.get(system.provider)
    price = f"{system.price.tokens_in:g} / {system.price.tokens_out:g} ({system.price.as_of})" if system.price else "free"
    return Standing(
        name, system.published, _paper(system), system.provider, system.model,
        key=" or ".join(f"${key}" for key in provider.keys) if provider else "",
        sdk=SDKS[provider.protocol] if provider else "",
        price=price, images=_limits(found.pictures(system)) if system.images else "", prompt=system.prompt,
        missing=missing(found, system, environment, today), command=_command(name, system), note=system.note,
    )  # fmt: skip


def missing(found: Catalogue, system: System, environment: Mapping[str, str], today: date) -> list[str]:
    """What a system lacks here and now."""
    if system.provider == "process":
        return ["a command that speaks docs/systems.md's JSONL (--command), or its answers (--answers)"]
    if system.provider == "checkpoint":
        return [] if _folder(system) else [_wanted(system)]
    provider = found.providers[system.provider]
    lacks = [] if find_spec(SDKS[provider.protocol]) else [f"pip install {SDKS[provider.protocol]}"]
    if provider.keys and not any(environment.get(key) for key in provider.keys):
        lacks.append(" or ".join(f"${key}" for key in provider.keys))
    lacks += [f"${name}" for name in provider.needs if not environment.get(name)]
    if provider.url is None and provider.protocol != "bedrock" and not environment.get(provider.url_from or ""):
        lacks.append(f"${provider.url_from}")
    if system.retired and today >= system.retired:
        lacks.append(f"retired on {system.retired}")
    return lacks


def _folder(system: System) -> Path | None:
    """The folder that `iadr1 backbones` downloads a checkpoint to, if it is there."""
    folder = MODELS / (system.model or "").rpartition("/")[2]
    return folder if system.model and (folder / "config.json").is_file() else None


def _wanted(system: System) -> str:
    if system.model is None:
        return "a folder with its weights (--checkpoint)"
    return f"hf download {system.model} --local-dir {MODELS / system.model.rpartition('/')[2]}"


def _command(name: str, system: System) -> str:
    how = {
        "checkpoint": f"--checkpoint {_folder(system) or MODELS / (system.model or name).rpartition('/')[2]} --engine vllm",
        "process": '--command "python their_model.py"',
    }.get(system.provider, "--budget 10" if system.price else "")
    return " ".join(f"iadr1 evaluate {name} --samples data/prepared/test/*.jsonl --into predictions {how}".split())


def _limits(pictures: Pictures) -> str:
    sides = [f"{pictures.longest} px long"] if pictures.longest else []
    sides += [f"{pictures.shortest} px short"] if pictures.shortest else []
    sides += [f"{pictures.patches} patches of {pictures.unit}"] if pictures.patches else []
    return ", ".join(sides)


def _paper(system: System) -> float | None:
    """The paper's mean over the data sets, or that of the supplementary results."""
    from iadr1.published import targets

    key = (system.published, system.stage, 0, "mean")
    found = [target.value for target in targets() if (target.backbone, target.stage, target.shots, target.dataset) == key]
    # Half up, as the paper rounds.
    return math.floor(found[0] * 10 + 0.5) / 10 if found else None
