"""`iadr1 plan`: what a training of a published backbone would take on GPUs."""

import argparse
from dataclasses import fields, replace

from iadr1.planning import GPUS, MODES, STAGES, Assumed, plan_table

PRICE = 2.0


def add_plan(command: argparse.ArgumentParser) -> None:
    """Give the command its options; every number that the model assumes is one."""
    command.description = (
        "Memory, seconds a step, hours and cost of PA-SFT and SC-GRPO by a stated model (docs/planning.md); nothing is measured. "
        "A cell is GiB a GPU, seconds a step, hours, and the cost of all GPUs. For a training of your own see `python -m tasks.pa_sft --dry-run`."
    )
    command.add_argument("--gpu", choices=GPUS, action="append", help="a kind of GPU (default: all)")
    command.add_argument("--stage", choices=STAGES, action="append", help="a training (default: both)")
    command.add_argument("--mode", choices=MODES, action="append", help="what is trained and where it lies (default: all)")
    command.add_argument("--price", type=float, default=PRICE, help="of an hour of one GPU (default: %(default)s)")
    for field in fields(Assumed):
        command.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help=f"{TOLD[field.name]} (default: %(default)s)",
        )
    command.set_defaults(run=_plan)


TOLD = {
    "mfu": "reached share of a GPU's operations a second",
    "efficiency": "reached share of its bandwidths",
    "pa_sft_rows": "rows of PA-SFT",
    "epochs": "epochs of PA-SFT",
    "pa_sft_batch": "rows of a step of PA-SFT on all GPUs",
    "sc_grpo_rows": "prompts of SC-GRPO",
    "completions": "completions of a step of SC-GRPO on all GPUs",
    "group": "completions of a prompt",
    "asked": "tokens of a prompt besides its image",
    "said": "tokens of an answer",
    "limit": "most tokens of a completion",
}


def _plan(options: argparse.Namespace) -> None:
    assumed = replace(Assumed(), **{field.name: getattr(options, field.name) for field in fields(Assumed)})
    for stage in options.stage or STAGES:
        for gpu in options.gpu or GPUS:
            for mode in options.mode or MODES:
                print(f"{STAGES[stage]}\n\n{plan_table(GPUS[gpu], stage, mode, price=options.price, assumed=assumed)}")
