"""Where PatchCore's features come from: a timm network with weights that are named, a model folder's own vision tower, or nothing that was learnt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iadr1.errors import ModelError
from iadr1.yardstick import Features

RANDOM, HUB = "random", "hub"
NETWORK, LAYERS = "wide_resnet50_2", ("layer2", "layer3")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def features_of(name: str, *, network: str = NETWORK, size: int | None = None, seed: int = 0) -> tuple[Features, str]:
    """Features by the name of a folder, a file of weights, `hub` or `random`, and in words what they are; raises ModelError."""
    if Path(name).is_dir():
        return _tower(Path(name), size or 128), f"the vision tower of {name}, {size or 128} pixels"
    words = f"{', '.join(LAYERS)} of {network}, {size or 224} pixels"
    if name == RANDOM:
        return _timm(
            network, size or 224, weights=None, hub=False, seed=seed
        ), f"{words}, UNTRAINED (random weights): a floor, no yardstick"
    if name == HUB:
        return _timm(network, size or 224, weights=None, hub=True, seed=seed), f"{words}, timm's weights"
    if not Path(name).is_file() or Path(name).suffix != ".safetensors":
        raise ModelError(
            f"--features {name}: no such folder or file. Name a model folder, a .safetensors file of {network}, `{HUB}` to fetch timm's weights, "
            f"or `{RANDOM}`."
        )
    return _timm(network, size or 224, weights=Path(name), hub=False, seed=seed), f"{words}, weights of {name}"


def _timm(network: str, size: int, *, weights: Path | None, hub: bool, seed: int) -> Features:
    import numpy as np
    import torch
    from torch.nn.functional import avg_pool2d, interpolate

    extractor = _extractor(network, hub=hub, seed=seed)
    if weights is not None:
        _load(extractor.feature_extractor, weights, network)

    def features(images: Sequence[Any]) -> torch.Tensor:
        """The images' features, [images, channels, places, places]."""
        pixels = np.stack([(np.asarray(image.resize((size, size)), np.float32) / 255 - MEAN) / STD for image in images])
        with torch.inference_mode():
            found = extractor(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
        # Each place with its eight neighbours, as in the paper.
        maps = [avg_pool2d(layer, 3, 1, 1) for layer in found.values()]
        same = [interpolate(layer, size=maps[0].shape[-2:], mode="bilinear") for layer in maps[1:]]
        return torch.cat([maps[0], *same], 1)

    return features


def _extractor(network: str, *, hub: bool, seed: int) -> Any:
    import torch
    from anomalib.models.components import TimmFeatureExtractor

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return TimmFeatureExtractor(backbone=network, layers=list(LAYERS), pre_trained=hub).eval()
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{network}: timm does not give it ({str(error).splitlines()[0]}). Name a folder or a file of weights."
            ) from error


def _load(network: Any, weights: Path, name: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        missing = network.load_state_dict(load_file(weights), strict=False).missing_keys
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(
            f"{weights}: not the weights of {name} ({str(error).splitlines()[0]}). Name the network with --network."
        ) from error
    if missing:
        raise ModelError(
            f"{weights}: not the weights of {name}: {len(missing)} tensors are missing, such as {missing[0]}. Name its --network."
        )


def _tower(folder: Path, size: int) -> Features:
    """What the language model is shown of an image, on the grid of its tokens."""
    import torch

    from iadr1 import backbones

    record = backbones.backbone_of(folder)
    if not record.limits_pixels:
        raise ModelError(f"{folder}: the tower of {record.model_type} has no plain grid of tokens. Use a Qwen model, or a timm network.")
    processor = backbones.load_processor(folder, max_pixels=size * size).image_processor
    model = backbones.load_model(folder).eval()
    merged = model.config.vision_config.spatial_merge_size

    def features(images: Sequence[Any]) -> torch.Tensor:
        inputs = processor(images=[image.resize((size, size)) for image in images], return_tensors="pt")
        _, rows, columns = (inputs["image_grid_thw"][0] // torch.tensor([1, merged, merged])).tolist()
        with torch.inference_mode():
            tokens = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
        return torch.stack([image.reshape(rows, columns, -1).permute(2, 0, 1) for image in tokens])

    return features
