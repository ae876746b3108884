"""What MLflow runs when it loads a registered inspector: images in, verdicts out. Nothing else imports it.

mlflow.pyfunc.load_model("models:/iad-r1@staging").predict(pandas.DataFrame({"image": ["part.png"]}))
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from iadr1 import prompts
from iadr1.engines import ENGINES
from iadr1.samples import Sample
from iadr1.verdict import Verdict

if TYPE_CHECKING:
    import pandas

ANSWERS = {True: "Yes", False: "No", None: None}


class Inspector(PythonModel):
    """Answers whether there is a defect, where, of what type, and why."""

    def load_context(self, context: Any) -> None:
        """Load the weights that were registered, with the settings they were evaluated with."""
        self.engine = ENGINES["transformers"](Path(context.artifacts["model"]), **context.model_config)

    # MLflow reads the annotation of the input as its schema.
    def predict(self, context, model_input, params=None) -> "pandas.DataFrame":  # type: ignore[no-untyped-def]
        """A row of answers for each path in the column `image`."""
        import pandas

        samples = [Sample(str(path), "", "", (str(path),), anomalous=False) for path in model_input["image"]]
        answers = self.engine([prompts.messages(sample) for sample in samples])
        return pandas.DataFrame([_row(answer.text, answer.truncated) for answer in answers])


def _row(text: str, truncated: bool) -> dict[str, str | None]:
    verdict = Verdict.parse(text, truncated=truncated)
    return {
        "answer": ANSWERS[verdict.anomalous],
        "location": verdict.location,
        "type": verdict.type,
        "reasoning": verdict.reasoning,
        "text": text,
    }


set_model(Inspector())
