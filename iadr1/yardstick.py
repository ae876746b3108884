"""PatchCore (anomalib) on the same samples and in the same report: what a detector finds that only knows good parts of a product.

It learns from normal images of each category alone. Its answer is yes where the score is above a threshold that normal images set: a quantile of
their own scores, each taken with that image's patches left out. Where a data set has no normal training images, the normal test images serve: in
folds, so that no image is judged by itself or by another picture of the same physical sample.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iadr1.errors import DatasetError
from iadr1.images import open_image
from iadr1.report import Prediction
from iadr1.samples import Sample

MODEL = "patchcore"
FOLDS = 5
BATCH = 8  # images


@dataclass(frozen=True, slots=True)
class Settings:
    """`coreset` is the share of patches that the bank keeps, `quantile` the share of normal images that the threshold calls good,
    `most` how many normal images of a category are learnt from."""

    coreset: float = 0.1
    quantile: float = 0.95
    neighbours: int = 9
    most: int = 100
    seed: int = 0


# PIL images to feature maps: float tensor [images, channels, rows, columns].
Features = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True)
class Detector:
    """What was learnt of a category: anomalib's model with its bank of patches, and the score above which an image is defective."""

    model: Any
    threshold: float

    def p_yes(self, patches: Any) -> list[float]:
        """Score / (score + threshold) of images given as patches [images, patches, channels]: 0.5 at the threshold, no calibrated probability."""
        return [score / (score + self.threshold) if score else 0.0 for score in _scores(self.model, patches)]


def predictions(
    samples: Sequence[Sample], normals: Sequence[Sample], features: Features, settings: Settings, done: Callable[[int], object]
) -> Iterator[Prediction]:
    """The answers about `samples`, learnt from `normals`; a category that has none there learns from its normal samples, in folds."""
    for category in sorted({sample.category for sample in samples}):
        here = [sample for sample in samples if sample.category == category]
        known = [sample for sample in normals if sample.category == category and not sample.anomalous]
        for judged, learnt in [(here, known)] if known else folds(here, settings.seed):
            yield from _judged(judged, _sampled(learnt, settings), features, settings)
            done(len(judged))


def folds(samples: Sequence[Sample], seed: int) -> list[tuple[list[Sample], list[Sample]]]:
    """(judged, learnt from) pairs that judge each sample once, by normal ones of the other folds; a physical sample is in one fold."""
    parts = sorted({sample.physical or sample.id for sample in samples})
    random.Random(seed).shuffle(parts)
    fold = {part: at % FOLDS for at, part in enumerate(parts)}
    fold_of = {sample.id: fold[sample.physical or sample.id] for sample in samples}
    pairs = [
        (
            [sample for sample in samples if fold_of[sample.id] == number],
            [sample for sample in samples if fold_of[sample.id] != number and not sample.anomalous],
        )
        for number in range(FOLDS)
    ]
    return [pair for pair in pairs if pair[0]]


def fitted(patches: Any, settings: Settings) -> Detector:
    """The detector of normal images, given as patches [images, patches, channels]; the same for the same patches and seed."""
    import numpy as np

    count, each, channels = patches.shape
    model = _model(settings.neighbours)
    chosen = _coreset(patches.reshape(-1, channels), settings)
    bank, image = patches.reshape(-1, channels)[chosen], np.asarray(chosen) // each
    left_out = []
    for at in range(count):
        model.memory_bank = bank[image != at]
        left_out += _scores(model, patches[at : at + 1])
    model.memory_bank = bank
    return Detector(model, float(np.quantile(left_out, settings.quantile, method="higher")))


def _judged(judged: Sequence[Sample], learnt: Sequence[Sample], features: Features, settings: Settings) -> Iterator[Prediction]:
    if len(learnt) < 2:
        name = f"{judged[0].dataset}/{judged[0].category}"
        raise DatasetError(
            f"{name}: PatchCore needs two normal images at least; found {len(learnt)}. Name a folder of them with --normals."
        )
    detector = fitted(_patches(learnt, features), settings)
    for at in range(0, len(judged), BATCH):
        some = judged[at : at + BATCH]
        for sample, p_yes in zip(some, detector.p_yes(_patches(some, features)), strict=True):
            yield Prediction(
                sample.id, sample.dataset, sample.category, MODEL, sample.anomalous, "Yes" if p_yes > 0.5 else "No",
                visibility=sample.visibility, location=sample.location, type=sample.type, reader="free", seed=settings.seed, p_yes=p_yes,
            )  # fmt: skip


def _sampled(normals: Sequence[Sample], settings: Settings) -> list[Sample]:
    return random.Random(settings.seed).sample(list(normals), min(settings.most, len(normals)))


def _patches(samples: Sequence[Sample], features: Features) -> Any:
    """[images, patches, channels]."""
    import torch

    parts = []
    for at in range(0, len(samples), BATCH):
        maps = features([open_image(sample.images[-1]) for sample in samples[at : at + BATCH]])
        parts.append(maps.flatten(2).transpose(1, 2))
    return torch.cat(parts)


def _model(neighbours: int) -> Any:
    """anomalib's PatchCore; features come from elsewhere, so that its own network is the smallest there is."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    return PatchcoreModel(layers=["layer1"], backbone="resnet10t", pre_trained=False, num_neighbors=neighbours).eval()


def _coreset(patches: Any, settings: Settings) -> list[int]:
    """The places of the patches that the bank keeps."""
    import contextlib
    import io

    import numpy as np
    import torch
    from anomalib.models.components import KCenterGreedy

    ratio = max(settings.coreset, min(1.0, 64 / len(patches)))
    # It draws from the global generators and shows a bar a category.
    before = np.random.get_state()
    with torch.random.fork_rng(), contextlib.redirect_stderr(io.StringIO()):
        torch.manual_seed(settings.seed)
        np.random.seed(settings.seed)
        chosen = KCenterGreedy(embedding=patches, sampling_ratio=ratio).select_coreset_idxs()
    np.random.set_state(before)
    return sorted(set(chosen))


def _scores(model: Any, patches: Any) -> list[float]:
    """The paper's image score of each image."""
    count, each, channels = patches.shape
    flat = patches.reshape(-1, channels)
    distances, places = model.nearest_neighbors(flat, n_neighbors=1)
    scores = model.compute_anomaly_score(distances.reshape(count, each), places.reshape(count, each), flat)
    return [float(score) for score in scores]


def shares(samples: Sequence[Sample], normals: Sequence[Sample]) -> Mapping[str, int]:
    """How many normal training images each category has."""
    known = [sample.category for sample in normals if not sample.anomalous]
    return {category: known.count(category) for category in sorted({sample.category for sample in samples})}
