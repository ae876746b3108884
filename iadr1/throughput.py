"""How fast a training is: tokens a second, and the share of the device's arithmetic that they need (MFU) where its peak is known."""

# Dense bfloat16 operations a second, from the vendor's data sheets, by a part of the device's name; the first that fits counts.
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}


def peak_of(device: str) -> float | None:
    """The most operations a second of a device, None where it is not known (such as that of a CPU)."""
    return next((peak for part, peak in PEAKS.items() if part in device), None)


def operations_a_token(parameters: int, trained: int, *, passes: int = 0) -> float:
    """What a step needs for each token: forward and backward, the gradients of what is trained, and `passes` more forwards.

    Two operations a parameter and pass, as usual; attention to other tokens, and that an image's pixels see other weights than its tokens,
    are left out.
    """
    return 2.0 * (2 * parameters + trained + passes * parameters)


def utilization(tokens_per_second: float, operations: float, peak: float) -> float:
    """The share of the peak that so many tokens a second use."""
    return tokens_per_second * operations / peak
