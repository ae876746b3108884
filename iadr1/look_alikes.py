"""Images that are the same picture although their files differ: encoded again, resized, a little brighter.

A perceptual hash finds candidates: a bit for each of 16 x 16 pairs of neighbouring cells, is the right one brighter? (D. Krawetz, dHash.) Of unrelated
pictures about half the bits differ; but photographs of one product that always lies in the same place may differ in three of 256. So candidates are looked
at again, 64 x 64 pixels of each without what is smooth: there a copy agrees to 0.995, and the most similar of 403,000 pairs of a real ball screw to 0.986.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SIDE = 16
BYTES = SIDE * SIDE // 8
NEAR = 10  # bits of 256 that may differ between candidates
FINE = 64
SMOOTH = 5  # pixels of the fine picture: what is smooth over them is taken away
SAME = 0.992  # correlation of what is left, from which on two pictures are one
ROWS = 256  # hashes that are compared with all others at a time: with 100,000 of them in 200 MB


def perceptual_hash(image: "np.ndarray") -> bytes:
    """The 32 bytes that look-alikes share but for a few bits, of an image [H, W, 3] of 0-255."""
    import numpy as np

    cells = _grey(image, SIDE + 1, SIDE)
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes()


def candidates(ones: Sequence[bytes], others: Sequence[bytes]) -> list[tuple[int, int]]:
    """The places of every hash of `ones` and of `others` that are nearly the same."""
    import numpy as np

    if not ones or not others:
        return []
    left, right = (np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, BYTES // 8) for hashes in (ones, others))
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(left), ROWS):
        differing = sum(np.bitwise_count(left[start : start + ROWS, None, word] ^ right[None, :, word]) for word in range(BYTES // 8))
        pairs += [(start + int(one), int(other)) for one, other in np.argwhere(differing <= NEAR)]
    return pairs


def detail(image: "np.ndarray") -> "np.ndarray":
    """What is left of an image [H, W, 3] of 0-255 without what is smooth, as a vector of length 1."""
    import numpy as np
    from scipy.ndimage import uniform_filter

    fine = _grey(image, FINE, FINE)
    rest = (fine - uniform_filter(fine, SMOOTH)).ravel()
    return np.asarray((rest - rest.mean()) / max(float(np.linalg.norm(rest - rest.mean())), 1e-6))


def is_same(one: "np.ndarray", other: "np.ndarray") -> bool:
    """Whether two details are of one picture."""
    return float(one @ other) >= SAME


def _grey(image: "np.ndarray", width: int, height: int) -> "np.ndarray":
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L").convert("F").resize((width, height), Image.Resampling.LANCZOS))
