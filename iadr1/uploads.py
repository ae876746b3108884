"""Images that come over the network as base64: refused by size and form before anything is decoded."""

import base64
import binascii
import io

from iadr1.errors import DatasetError

LARGEST_FILE = 20 << 20  # bytes
MOST_PIXELS = 50_000_000  # 150 MB once decoded
FORMS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")


def uploaded(text: object, *, name: str) -> bytes:
    """The bytes of an image given as base64 or as a data URI; raises DatasetError that names it when it is none or too large."""
    from PIL import Image

    content = _decoded(text, name)
    try:
        with Image.open(io.BytesIO(content), formats=FORMS) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{name}: no image that can be read ({_plain(error)}). Send one of {', '.join(FORMS)}.") from error
    if width * height > MOST_PIXELS:
        raise DatasetError(f"{name}: {width} x {height} pixels; {MOST_PIXELS:,} are the most. Send a smaller picture.")
    return content


def _decoded(text: object, name: str) -> bytes:
    if not isinstance(text, str) or not text:
        raise DatasetError(f"{name}: base64 text is expected; found {type(text).__name__ if text != '' else 'nothing'}.")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if len(text) > LARGEST_FILE * 4 // 3 + 4:
        raise DatasetError(f"{name}: larger than {LARGEST_FILE >> 20} MiB. Send a smaller picture.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DatasetError(f"{name}: not base64 ({error}); it starts {text[:20]!r}.") from error


def _plain(error: BaseException) -> str:
    return "its form is not known" if "cannot identify" in str(error) else str(error)
