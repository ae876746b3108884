"""The expectation that Great Expectations has not: no row has a fault of a kind, where a column says in words what is wrong with a row."""

from functools import cache
from typing import Any


@cache
def no_fault() -> Any:
    """The class of the expectation; it is made where it is used, because importing Great Expectations takes seconds."""
    from great_expectations.expectations import ExpectColumnValuesToBeNull
    from great_expectations.render import LegacyDiagnosticRendererType
    from great_expectations.render.renderer.renderer import renderer

    class ExpectNoFault(ExpectColumnValuesToBeNull):
        """The column is empty in every row; Data Docs count the rows with a fault, and quote the faults below."""

        @classmethod
        @renderer(renderer_type=LegacyDiagnosticRendererType.OBSERVED_VALUE)
        def _diagnostic_observed_value_renderer(
            cls, configuration: Any = None, result: Any = None, runtime_configuration: Any = None, **_: Any
        ) -> str:
            counted = result.result if result else {}
            if "unexpected_count" not in counted:
                return "not judged"
            return f"{counted['unexpected_count']:,} of {counted['element_count']:,} rows have this fault"

    return ExpectNoFault
