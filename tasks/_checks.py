"""What a sound table of samples is like: each check is one line, an expectation of Great Expectations with how bad its failure is.

Where the library has no expectation for a question, `tasks._tables` answers it in words, in a column that is empty in a sound row:
what files hold is read once, by many processes, and a fault is quoted wherever it is told. `tasks._expectations` judges those columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iadr1.params import Validate as Limits
from tasks._expectations import no_fault
from tasks._tables import RAW, TRAINING

if TYPE_CHECKING:
    import great_expectations as gx


@dataclass(frozen=True, slots=True)
class Check:
    """An expectation by its class name, the fact that it stands for, its arguments, and whether a failure stops the chain."""

    expectation: str
    fact: str
    given: dict[str, Any] = field(default_factory=dict)
    is_error: bool = True

    @property
    def sentence(self) -> str:
        """The fact as Data Docs show it."""
        return f"{self.fact[0].upper()}{self.fact[1:]}{'' if self.is_error else ' (else a warning)'}."


def fault(column: str, fact: str, *, is_error: bool = True) -> Check:
    """No row has a fault of this kind."""
    return Check("ExpectNoFault", fact, {"column": column}, is_error)


# Warnings: the raw data may hold more than any sample uses, and what samples use is judged in their tables.
LISTING = (
    Check("ExpectColumnValuesToBeUnique", "paths are unique", {"column": "id"}),
    Check("ExpectColumnValuesToBeBetween", "files are not empty", {"column": "bytes", "min_value": 1}, is_error=False),
    fault("name_problem", "names can be kept on every system", is_error=False),
)
IDENTITY = (
    fault("schema_problem", "every field is of its type"),
    Check("ExpectColumnValuesToBeUnique", "ids are unique", {"column": "id"}),
    Check(
        "ExpectColumnValuesToMatchRegex",
        "ids are dataset/category/split/class/name",
        {"column": "id", "regex": r"^[^/]+/[^/]+/(?:train|test)/[^/]+/.+$"},
    ),
    Check("ExpectColumnValuesToBeInSet", "the label is true or false", {"column": "anomalous", "value_set": [True, False]}),
    Check("ExpectColumnValuesToNotBeNull", "the category is known", {"column": "category"}),
    Check("ExpectColumnValuesToBeBetween", "visibility is between 0 and 1", {"column": "visibility", "min_value": 0, "max_value": 1}),
    Check("ExpectColumnValuesToBeUnique", "no image is there twice", {"column": "sha256"}, is_error=False),
)
FILES = (
    fault("image_problem", "the image can be read and is not blank"),
    fault("mask_problem", "the mask has the size of its image and marks something"),
    fault("reference_problem", "references exist, are normal images of the same product, and not the image itself"),
    fault("annotation_problem", "location and type are words that the rewards know, and only defects have them"),
)
APART = (
    fault("physical_sample_also_in", "no physical sample is in another part of the training or in a test set"),
    fault("image_also_in", "no image is in another part of the training or in a test set"),
    fault("look_alike_in", "no image of the training looks like one of a test set (perceptual hash)"),
)
KNOWN = fault(
    "known_error", "no image is a known error of its benchmark; `prepare` leaves out those of iadr1/known_errors.yaml", is_error=False
)
CHAINS = (
    Check("ExpectColumnValuesToNotBeNull", "every row has a chain of thought", {"column": "reasoning"}),
    fault("chain_problem", "the chain of thought contradicts none of the tags, and speaks of no reference image"),
    Check(
        "ExpectColumnValueLengthsToBeBetween",
        "chains of thought have 40 to 2000 characters",
        {"column": "reasoning", "min_value": 40, "max_value": 2000},
        is_error=False,
    ),
    Check(
        "ExpectColumnProportionOfUniqueValuesToBeBetween",
        "at least 80 % of the chains of thought differ",
        {"column": "reasoning", "min_value": 0.8},
        is_error=False,
    ),
)
ANSWERS_ONLY = (fault("reasoning", "no row has a chain of thought, because prepare.chains is answers_only"),)
GRAMMAR = fault("target_problem", "the target text is in the grammar that the rewards read")
BOTH_LABELS = Check(
    "ExpectColumnMeanToBeBetween",
    "there are normal and defective images, so that the share of defects is neither 0 nor 1",
    {"column": "anomalous", "min_value": 0, "max_value": 1, "strict_min": True, "strict_max": True},
    is_error=False,
)


def checks(table: str, limits: Limits, *, empty: bool, chains: bool) -> Sequence[Check]:
    """The checks of a table in the order of the report; an empty table has no columns, so that only its length is judged.

    `chains` says whether the rows of PA-SFT carry chains of thought, or answers only.
    """
    if table == RAW:
        return [Check("ExpectTableRowCountToBeBetween", "there is at least 1 file", {"min_value": 1}), *([] if empty else LISTING)]
    least = limits.minimum_rows if table in ("pa_sft", "sc_grpo") else 1
    rows = Check("ExpectTableRowCountToBeBetween", f"there are at least {least} rows", {"min_value": least}, is_error=table != "validation")
    if empty:
        return [rows]
    share = limits.minimum_minority_share
    balance = Check(
        "ExpectColumnMeanToBeBetween",
        f"normal and defective images have a share of at least {share} each",
        {"column": "anomalous", "min_value": share, "max_value": 1 - share},
    )
    thought = (CHAINS if chains else ANSWERS_ONLY) if table in ("pa_sft", "validation") else ()
    form = (GRAMMAR, *thought, balance) if table in TRAINING else (BOTH_LABELS,)
    return [rows, *IDENTITY, *FILES, *APART, KNOWN, *form]


def expectations(suite: Sequence[Check]) -> "list[gx.expectations.Expectation]":
    """The checks as Great Expectations takes them."""
    import great_expectations.expectations as gxe

    kinds = {**vars(gxe), "ExpectNoFault": no_fault()}
    return [
        kinds[check.expectation](**check.given, severity="critical" if check.is_error else "warning", description=check.sentence)
        for check in suite
    ]
