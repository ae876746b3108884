"""`iadr1 yardstick`: PatchCore on a list of samples, as predictions for `iadr1 report`."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iadr1.cli_data import LAYOUT_NAMES
from iadr1.errors import DatasetError, ModelError

if TYPE_CHECKING:
    from iadr1.samples import Sample

HELP = "a classical detector (PatchCore) on the same samples, for comparison"
EXAMPLES = """\
examples:
  iadr1 yardstick data/prepared/test/mpdd.jsonl --normals photos/mpdd --features weights/wide_resnet50_2.safetensors --output patchcore.jsonl
  iadr1 yardstick data/prepared/test/mvtec.jsonl --features models/pa_sft --output patchcore.jsonl      no training normals: in folds
  iadr1 report patchcore.jsonl data/predictions/mvtec-0.jsonl --compare patchcore sc_grpo
"""


def add_yardstick(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `yardstick`."""
    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument(
        "samples", type=Path, metavar="SAMPLES.jsonl", help="what to judge, as `prepare` and `iadr1 data convert` write it"
    )
    command.add_argument("--output", type=Path, required=True, metavar="PREDICTIONS.jsonl")
    command.add_argument(
        "--features",
        default="random",
        metavar="FEATURES",
        help="a model folder (its vision tower), a .safetensors file of a timm network, hub, or random (default: %(default)s)",
    )
    command.add_argument("--network", default="wide_resnet50_2", help="timm's name of the network (default: %(default)s)")
    command.add_argument("--size", type=int, help="pixels of a side (default: 224, of a vision tower 128)")
    command.add_argument(
        "--normals",
        type=Path,
        metavar="FOLDER",
        help="a data set whose normal training images are learnt from (default: normal test images, in folds)",
    )
    command.add_argument("--layout", default="mvtec", choices=LAYOUT_NAMES, help="how FOLDER lies (default: %(default)s)")
    command.add_argument(
        "--most", type=_count, default=100, metavar="N", help="normal images learnt from, of each category (default: %(default)s)"
    )
    command.add_argument(
        "--quantile", type=_share, default=0.95, help="of the normal images' scores, is the threshold (default: %(default)s)"
    )
    command.set_defaults(run=_yardstick)


def _share(text: str) -> float:
    if not 0 < (share := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"a share above 0 and up to 1; found {text}")
    return share


def _count(text: str) -> int:
    if (count := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"2 or more; found {text}")
    return count


def _yardstick(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from iadr1 import yardstick
    from iadr1.report import EvalReport, write_predictions
    from iadr1.report_tables import markdown
    from iadr1.samples import read_samples

    _require_anomalib()
    from iadr1.calibration import Calibration
    from iadr1.yardstick_features import features_of

    samples = read_samples(options.samples)
    if not samples:
        raise DatasetError(f"{options.samples} holds no sample. Check it, or run `dvc repro prepare`.")
    normals = _normals(options, samples)
    settings = yardstick.Settings(quantile=options.quantile, most=options.most)
    features, told = features_of(options.features, network=options.network, size=options.size, seed=settings.seed)
    with tqdm(total=len(samples), desc="patchcore", unit=" images") as bar:
        found = list(yardstick.predictions(samples, normals, features, settings, bar.update))
    write_predictions(options.output, found)
    print(markdown(EvalReport.of(found).to_dict()), end="")
    area = Calibration.of([float(each.p_yes or 0) for each in found], [each.anomalous for each in found]).auroc
    print(f"AUROC {'-' if area is None else f'{area / 100:.3f}'}. Features: {told}.")
    print(_learnt(yardstick.shares(samples, normals), options))


def _learnt(shares: Mapping[str, int], options: argparse.Namespace) -> str:
    without = [category for category, count in shares.items() if not count]
    known = [min(count, options.most) for count in shares.values() if count]
    many = f"{min(known)} to {max(known)}" if len(set(known)) > 1 else f"{known[0]}" if known else ""
    parts = [f"Learnt from {many} normal training images a category."] if known else []
    parts += [f"Without normal training images, so judged in folds of the test's own: {', '.join(without)}."] if without else []
    return " ".join([*parts, f"Threshold: the {options.quantile:g} quantile of the normal images' scores, each left out of the bank."])


def _normals(options: argparse.Namespace, samples: "Sequence[Sample]") -> "list[Sample]":
    from iadr1.datasets import samples_of, split_of

    if options.normals is None:
        return []
    judged = {sample.id for sample in samples}
    listed = samples_of(options.layout, options.normals, samples[0].dataset)
    normals = [sample for sample in listed if split_of(sample) == "train" and not sample.anomalous and sample.id not in judged]
    wanted, there = ({sample.category for sample in some} for some in (samples, normals))
    if not wanted & there:
        raise DatasetError(
            f"--normals {options.normals}: no normal training image of {', '.join(sorted(wanted))}; found {', '.join(sorted(there)) or 'none at all'}. "
            "Name the folder of that data set, and its --layout."
        )
    return normals


def _require_anomalib() -> None:
    from importlib.util import find_spec

    if find_spec("anomalib") is None:
        raise ModelError("the yardstick is anomalib's PatchCore, which is not installed. Run `pip install 'iadr1[classical]'`.")
