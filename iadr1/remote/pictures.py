"""Images as a provider wants them: never larger than it looks at, never enlarged, lossless where they are small enough."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadr1.images import open_image, size_of

if TYPE_CHECKING:
    from PIL import Image

VERSION = 1  # of how images are scaled and written: a new one asks everything anew
QUALITIES = (95, 90, 80, 70)


@dataclass(frozen=True, slots=True)
class Pictures:
    """The most of an image that a provider looks at, in pixels and in patches of `unit` by `unit`, and what that costs in tokens.

    An image of p patches takes `base + each * p` tokens. `longest` and `shortest` bound the two sides; `megabytes` bounds the file.
    """

    longest: int | None = None
    shortest: int | None = None
    patches: int | None = None
    unit: int = 28
    base: int = 0
    each: float = 1.0
    megabytes: float | None = None

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The size that an image of `width` and `height` is sent in: the same form, never larger."""
        scale = min(
            1.0,
            (self.longest or math.inf) / max(width, height),
            (self.shortest or math.inf) / min(width, height),
            math.sqrt((self.patches or math.inf) * self.unit**2 / (width * height)),
        )
        scaled = _scaled(width, height, scale)
        while self.patches and self._count(*scaled) > self.patches:  # a patch that is cut off counts whole
            scale *= 0.99
            scaled = _scaled(width, height, scale)
        return scaled

    def tokens(self, path: str | Path) -> int:
        """The tokens that the image of a file takes, from its size alone."""
        return math.ceil(self.base + self.each * self._count(*self.size(*size_of(path))))

    def _count(self, width: int, height: int) -> int:
        return math.ceil(width / self.unit) * math.ceil(height / self.unit)

    def encoded(self, path: str | Path) -> tuple[str, bytes]:
        """The format (png or jpeg) and the bytes of an image; raises DatasetError when it cannot be read."""
        image = open_image(path)
        size = self.size(*image.size)
        if size != image.size:
            from PIL import Image

            image = image.resize(size, Image.Resampling.LANCZOS)
        limit = math.inf if self.megabytes is None else self.megabytes * 1e6
        content = _written(image, "png", compress_level=3)
        if len(content) <= limit:
            return "png", content
        tries = (_written(image, "jpeg", quality=quality, subsampling=0) for quality in QUALITIES)
        return "jpeg", next((content for content in tries if len(content) <= limit), _written(image, "jpeg", quality=50))


def data_url(form: str, content: bytes) -> str:
    """An image inside an address, as OpenAI's protocol carries it."""
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


def _scaled(width: int, height: int, scale: float) -> tuple[int, int]:
    return (width, height) if scale >= 1 else (max(1, int(width * scale)), max(1, int(height * scale)))


def _written(image: "Image.Image", form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
