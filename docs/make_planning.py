"""Writes docs/planning.md: what training each backbone takes on GPUs, computed by iadr1/planning.py. Run `python docs/make_planning.py`."""

from pathlib import Path

from iadr1.cli_plan import PRICE
from iadr1.planning import GPUS, MODES, STAGES, USABLE, Assumed, plan_table
from iadr1.report_tables import table
from iadr1.shapes import SHAPES

HERE = Path(__file__).parent


def document() -> str:
    """The page, with its tables and assumptions filled in."""
    assumed = Assumed()
    told = {name: f"{getattr(assumed, name):,}" for name in ("mfu", "efficiency", "pa_sft_rows", "epochs", "pa_sft_batch", "sc_grpo_rows")}
    told |= {name: str(getattr(assumed, name)) for name in ("completions", "group", "asked", "said", "limit")}
    text = (HERE / "planning.template.md").read_text(encoding="utf-8")
    for name, value in {
        **told,
        "onevision": f"{SHAPES[0].image_tokens:,}",
        "usable": f"{USABLE:.0%}",
        "price": f"{PRICE:g}",
        "gpus": _gpus(),
        "shapes": _shapes(),
        "tables": _tables(),
    }.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _gpus() -> str:
    rows = [
        [g.name, f"{g.capacity / 1e9:.0f} GB", f"{g.speed / 1e12:.0f}", f"{g.bandwidth / 1e12:g}", f"{g.link / 1e9:.0f}"]
        for g in GPUS.values()
    ]
    return table(["GPU", "memory", "TFLOP/s (bfloat16)", "TB/s of its memory", "GB/s to its neighbours"], rows)


def _shapes() -> str:
    header = ["backbone", "vision", "projector", "language", "image tokens", "patches"]
    millions = [[f"{count / 1e6:,.0f} M" for count in shape.parameters.values()] for shape in SHAPES]
    rows = [
        [s.hub.rpartition("/")[2], *counts, f"{s.image_tokens:,}", f"{s.patches:,}"] for s, counts in zip(SHAPES, millions, strict=True)
    ]
    return table(header, rows)


def _tables() -> str:
    parts = []
    for stage, name in STAGES.items():
        parts.append(f"## {name}\n")
        parts += [plan_table(gpu, stage, mode, price=PRICE, assumed=Assumed()) for gpu in GPUS.values() for mode in MODES]
    return "\n".join(parts)


if __name__ == "__main__":
    (HERE / "planning.md").write_text(document(), encoding="utf-8")
