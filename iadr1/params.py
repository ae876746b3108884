"""The parameters of a run: what `params.yaml` may say, refused by name where it says anything else."""

import ast
import difflib
import functools
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from iadr1.credentials import unsafe
from iadr1.errors import ParamsError

# YAML 1.1 wants a point and a signed exponent: it reads 1e-6 as a text.
_FLOAT_AS_TEXT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")

# Which dataclass of TRL receives the keys of a section that are not ours.
TRAINERS = {"pa_sft": ("trl.trainer.sft_config", "SFTConfig"), "sc_grpo": ("trl.trainer.grpo_config", "GRPOConfig")}


class Section(BaseModel):
    """A part of the parameters: unchangeable, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Experiment(Section):
    """Where the results of this run go, so that experiments never overwrite one another.

    `prepared` and `pa_sft` are where a run finds what another one has made for it; None: below its own `data` and `models`.
    """

    name: str
    params: str
    fetched: str
    data: str
    models: str
    reports: str
    checkpoints: str
    prepared: str | None = None
    pa_sft: str | None = None


class Source(Section):
    """A data set: how its folder is laid out, and where it is below the raw data.

    `types` gives a type to defect folders whose names state none; `exclude` names samples (by id) with known errors, which are left out.
    """

    layout: str
    folder: str
    types: dict[str, str] = {}
    exclude: list[str] = []


class Fetch(Section):
    """Where images come from: made by the procedural benchmark, a folder of the user's, an S3 store or a data set of the Hugging Face hub.

    `path` is the folder, s3://BUCKET/PREFIX or OWNER/NAME; `manifest` a CSV of the files' sizes and hashes; `revision` a commit of the hub.
    """

    source: Literal["synthetic", "folder", "s3", "hub"]
    path: str | None
    manifest: str | None = None
    revision: str | None = None
    train_images: int
    test_images: int


class Prepare(Section):
    """Which samples train, how many, and in which variant of the paper's tables (docs/data.md).

    `pa_sft_share` keeps that share of the PA-SFT rows; with `answers_only` they teach the answer alone; `shots` is how many normal reference
    images a training prompt shows before the query; `anomalous_share` is that of every part, `sc_grpo_anomalous_share` that of SC-GRPO's prompts.
    `teacher` is the model that writes the chains, None for the offline teacher; `reviews` the
    folder of what people decided about them, None where nobody did; `reject` names the gates on chains whose findings cost a row, the others are only told.
    """

    train: dict[str, Source]
    pa_sft_rows: int
    sc_grpo_rows: int
    validation_rows: int
    anomalous_share: float = Field(ge=0, le=1)
    sc_grpo_anomalous_share: float | None = Field(default=None, ge=0, le=1)
    pa_sft_share: float = Field(gt=0, le=1)
    chains: Literal["expert_ad", "answers_only"]
    types: Literal["fine", "coarse"]
    grid: int = Field(ge=1, le=5)
    shots: int = Field(ge=0, le=4)
    teacher: str | None
    reviews: str | None
    reject: list[str]

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each part is to have."""
        return {"pa_sft": self.pa_sft_rows, "sc_grpo": self.sc_grpo_rows, "validation": self.validation_rows}

    @property
    def anomalous_shares(self) -> dict[str, float]:
        """The share of defective rows in each part."""
        special = {} if self.sc_grpo_anomalous_share is None else {"sc_grpo": self.sc_grpo_anomalous_share}
        return dict.fromkeys(self.rows, self.anomalous_share) | special


class Validate(Section):
    """What the training data must be like."""

    minimum_rows: int
    minimum_minority_share: float


class Launch(Section):
    """How many processes of this machine share a training, one for each GPU; torchrun's own number counts where that has started the stage."""

    processes: int = Field(default=1, ge=1)


class Trainer(BaseModel):
    """A section whose further keys go untouched to the trainer's own dataclass.

    `freeze` names parts that stay as they are, `lora` PEFT's keys (none: full training; `quantized` holds the weights in 4 bits),
    `global_batch_size` the rows of a step on all devices together, `limits` what replaces a limit of a healthy training, `launch` on how
    many processes it runs.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    freeze: list[str] = []
    lora: dict[str, Any] = {}
    global_batch_size: int | None = None
    limits: dict[str, float] = {}
    launch: Launch = Launch()

    @property
    def trainer(self) -> dict[str, Any]:
        """The keys that belong to the trainer."""
        return dict(self.model_extra or {})


class PaSft(Trainer):
    """PA-SFT: the model that is tuned, and the largest image it is shown (null where the family has no such limit)."""

    backbone: str
    max_pixels: int | None


class ScGrpo(Trainer):
    """SC-GRPO: which rewards count, and how much; the recipe of the trainer, with what replaces a part of it; which model it starts from.

    A policy that starts from the base model was never shown the form of an answer: it is asked for it in words (the paper's Table 9).
    Every `table_steps` steps MLflow gets a table of completions.
    """

    preset: str
    rewards: dict[str, float]
    recipe: str = "paper"
    balanced: bool | None = None
    resamples: int | None = None
    start: Literal["pa_sft", "base"] = "pa_sft"
    table_steps: int = Field(default=20, ge=1)


class Evaluate(Section):
    """What is evaluated on what.

    `protocols` are those of docs/evaluation.md; `references` is how they are chosen of a product; with `threshold` a cut of P(yes) is chosen on
    the products of validation; `questions` is MMAD's list of them (mmad.json), asked about the same images; with `latency` predictions keep each
    answer's seconds, and no two runs' files are then alike.
    """

    datasets: dict[str, Source]
    shots: list[int]
    models: list[str]
    engine: Literal["transformers", "vllm", "server"]
    batch_size: int
    max_new_tokens: int
    protocols: Annotated[list[Literal["paper", "fair", "constrained", "fair_constrained"]], Field(min_length=1)] = ["paper"]
    references: Literal["random", "similar"] = "random"
    threshold: bool = False
    questions: str | None = None
    latency: bool = False


class ClassFloor(Section):
    """The floor of every class that has so many images of each label."""

    floor: float
    images: int = Field(ge=1)


class Compared(Section):
    """By how many points of mean balanced accuracy a candidate may be worse than the live model, or has to be better, on so many same images."""

    points: float = Field(ge=0)
    images: int = Field(ge=2)


class Gates(Section):
    """What a model must be to be promoted; docs/registry.md has a line for each. One that is null or left out is not asked."""

    data_validated: bool | None = None
    lineage_complete: bool | None = None
    mean_balanced_accuracy: float | None = None
    dataset_balanced_accuracy: float | None = None
    class_balanced_accuracy: ClassFloor | None = None
    missed_defects: float | None = None
    unreadable_answers: float | None = None
    same_answer: float | None = None
    location_accuracy: float | None = None
    type_accuracy: float | None = None
    seconds: float | None = None
    no_regression: Compared | None = None
    better_than_live: Compared | None = None


class Register(Section):
    """The registered model's name, the gates that it has to pass, and whether MLflow's older stage field follows its state."""

    name: str
    gates: Gates
    mirror_stages: bool = False


# A dataclass, because pydantic's own models cannot have a field called `validate` or `register`.
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Params:
    """Everything a run may be told."""

    seed: StrictInt
    experiment: Experiment
    fetch: Fetch
    prepare: Prepare
    validate: Validate
    pa_sft: PaSft
    sc_grpo: ScGrpo
    evaluate: Evaluate
    register: Register


def load(path: Path) -> Params:
    """The parameters of a file; raises ParamsError that names the first key that is wrong and what to do."""
    return parse(read(path), source=str(path))


def read(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, with nothing checked but that YAML read the numbers as numbers."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: no such file. Run from the project's root, or name another file with --params.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not YAML ({' '.join(str(error).split())}). Mend that line.") from error
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: holds {type(tree).__name__}, not keys and values. See params.yaml for the form.")
    _refuse_numbers_as_text(tree, source=str(path))
    for problem in unsafe(tree):
        raise ParamsError(f"{path}: {problem}")
    return tree


def parse(tree: Mapping[str, Any], *, source: str) -> Params:
    """The parameters of keys and values; `source` names them in errors."""
    try:
        params = TypeAdapter(Params).validate_python(dict(tree))
    except ValidationError as error:
        raise ParamsError(f"{source}: {_first_problem(error, tree)}") from error
    for section, (module, name) in TRAINERS.items():
        _refuse_unknown_trainer_keys(getattr(params, section), section, fields=trainer_fields(module, name), source=source)
    for problem in _contradictions(params):
        raise ParamsError(f"{source}: {problem}")
    return params


def _contradictions(params: Params) -> Iterator[str]:
    """Keys that cannot both be meant."""
    for name in ("anomalous_share", "sc_grpo_anomalous_share"):
        share = getattr(params.prepare, name)
        # 1 - 0.8 is a little less than 0.2
        if share is not None and round(min(share, 1 - share), 9) < params.validate.minimum_minority_share:
            yield (
                f"prepare.{name} {share} leaves one class fewer rows than "
                f"validate.minimum_minority_share {params.validate.minimum_minority_share} allows. Change one of them."
            )
    if params.sc_grpo.preset == "released" and params.prepare.grid != 3:
        yield (
            f"sc_grpo.preset released knows places on a 3 x 3 grid only, but prepare.grid is {params.prepare.grid}. "
            "Set the grid to 3, or take another preset."
        )


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: what may have been meant, or what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1)
    return f"did you mean {close[0]}?" if close else f"known are: {', '.join(names)}."


@functools.cache
def trainer_fields(module: str, name: str) -> frozenset[str]:
    """The fields of a trainer's dataclass, read from its source because importing it loads torch; empty when it is not installed."""
    package = importlib.util.find_spec(module.partition(".")[0])
    if package is None or package.origin is None:
        return frozenset()
    file = Path(package.origin).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return _fields_in(ast.parse(file.read_text(encoding="utf-8")), name, package=file.parent)


def _fields_in(tree: ast.Module, name: str, *, package: Path) -> frozenset[str]:
    definition = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    own = {node.target.id for node in definition.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    return frozenset(own).union(*(_fields_of_base(base.id, package) for base in definition.bases if isinstance(base, ast.Name)))


def _fields_of_base(name: str, package: Path) -> frozenset[str]:
    if name == "TrainingArguments":
        return trainer_fields("transformers.training_args", name)
    file = package / "base_config.py"
    return _fields_in(ast.parse(file.read_text(encoding="utf-8")), name, package=package)


def _refuse_unknown_trainer_keys(section: Trainer, name: str, *, fields: frozenset[str], source: str) -> None:
    known = fields | type(section).model_fields.keys()
    unknown = [key for key in section.trainer if key not in known]
    if fields and unknown:
        raise ParamsError(f"{source}: {name}.{unknown[0]} is not a parameter; {suggestion(unknown[0], known)}")


def _refuse_numbers_as_text(tree: Any, *, source: str, at: tuple[str, ...] = ()) -> None:
    for key, value in _children(tree):
        _refuse_numbers_as_text(value, source=source, at=(*at, str(key)))
    if isinstance(tree, str) and _FLOAT_AS_TEXT.fullmatch(tree):
        raise ParamsError(f"{source}: {'.'.join(at)} is the text '{tree}' to YAML 1.1, not a number; write {_as_yaml_float(tree)}.")


def _children(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict):
        yield from tree.items()
    elif isinstance(tree, list):
        yield from enumerate(tree)


def _as_yaml_float(text: str) -> str:
    mantissa, exponent = f"{float(text):e}".split("e")
    return f"{float(mantissa)}e{exponent}"


def _first_problem(error: ValidationError, tree: Mapping[str, Any]) -> str:
    problem = error.errors()[0]
    *above, key = problem["loc"] or ("",)
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{name} is not a parameter; {suggestion(str(key), _known(above))}"
    if problem["type"] in ("missing", "missing_argument"):
        return f"{name} is missing. Add it; params.yaml shows every key."
    return f"{name}: {problem['msg']}; found {problem['input']!r}."


def _known(section: Iterable[int | str]) -> Iterable[str]:
    model: Any = Params
    for part in section:
        model = _annotation(model, part)
    return model.model_fields if hasattr(model, "model_fields") else [field.name for field in fields(model)]


def _annotation(model: Any, part: int | str) -> Any:
    hints = get_type_hints(model)
    if part in hints:
        hint = hints[str(part)]
        return get_args(hint)[-1] if get_origin(hint) is dict else hint
    return model
