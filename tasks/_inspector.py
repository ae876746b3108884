"""What MLflow runs when it loads or serves a registered inspector: images as base64 in, the objects of `iadr1 inspect --json` out.

Nothing else imports it. docs/inspect.md has a request, its answer and the limits.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

from iadr1.engines import ENGINES
from iadr1.errors import Iadr1Error
from iadr1.inspection import Inspection, inspections
from iadr1.uploads import uploaded

MOST_IMAGES = 64  # of one request
GRIDS = range(1, 6)


class Refused(MlflowException):
    """A request that cannot be used, as a 400 in our words: MLflow's server would put all that was sent into the message."""

    def __init__(self, why: str) -> None:
        super().__init__(why, error_code=INVALID_PARAMETER_VALUE)
        self.why = why

    def serialize_as_json(self) -> str:
        """The body of the answer."""
        return json.dumps({"error_code": self.error_code, "message": self.why})


class Inspector(PythonModel):
    """Answers whether there is a defect, where, of what type, and why."""

    def load_context(self, context: Any) -> None:
        """Load the weights that were registered, with the settings they were evaluated with."""
        self.engine = ENGINES["transformers"](Path(context.artifacts["model"]), **context.model_config)
        # MLflow's server answers requests in threads; two at once would need the memory of two and be no faster.
        self.one_at_a_time = Lock()

    # MLflow reads the annotation of the input as its schema.
    def predict(self, context, model_input, params=None) -> list[dict[str, Any]]:  # type: ignore[no-untyped-def]
        """An inspection of each row's `image`, beside its `reference` where it has one; a request that cannot be used is told so (400)."""
        try:
            return self._inspections(model_input.to_dict(orient="records"), (params or {}).get("grid", 3))
        except Iadr1Error as error:
            raise Refused(str(error)) from error

    def _inspections(self, rows: list[dict[str, Any]], grid: int) -> list[dict[str, Any]]:
        if grid not in GRIDS or len(rows) > MOST_IMAGES:
            raise Iadr1Error(f"grid is 1 to 5 and a request has up to {MOST_IMAGES} images; found grid {grid} and {len(rows)} images.")
        with TemporaryDirectory(prefix="iadr1-") as folder:
            images = [_saved(row["image"], folder, f"image {at}") for at, row in enumerate(rows)]
            references = [_reference(row, folder, at) for at, row in enumerate(rows)]
            with self.one_at_a_time:
                found = self._found(images, references, grid)
        if fault := next((f"image {at}: {one.error}." for at, one in enumerate(found) if one.status is None), None):
            raise Iadr1Error(fault)
        return [asdict(replace(one, image=str(at))) for at, one in enumerate(found)]

    def _found(self, images: list[str], references: list[list[str]], grid: int) -> list[Inspection]:
        if not any(references):
            return list(inspections(self.engine, images, grid=grid))
        return [
            next(inspections(self.engine, [image], references=beside, grid=grid)) for image, beside in zip(images, references, strict=True)
        ]


def _reference(row: dict[str, Any], folder: str, at: int) -> list[str]:
    # A column that only some rows have is NaN in the others.
    given = row.get("reference")
    return [_saved(given, folder, f"reference {at}")] if isinstance(given, str) and given else []


def _saved(text: object, folder: str, name: str) -> str:
    path = Path(folder, name)
    path.write_bytes(uploaded(text, name=name))
    return str(path)


set_model(Inspector())
