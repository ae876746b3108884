"""An inspected image with its verdict drawn on it: the grid, the cells that the model names, and one line below."""

from typing import TYPE_CHECKING

from iadr1.images import open_image
from iadr1.inspection import Inspection

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageDraw import ImageDraw as Draw

SMALLEST, LARGEST = 384, 1024  # pixels of the longer side: cells and words of a small image would else not be seen
COLOURS = {"Yes": "#d1242f", "No": "#1a7f37", None: "#9a6700"}
WORDS = {"Yes": "DEFECT", "No": "good", None: "NO ANSWER"}


def marked(found: Inspection) -> "Image.Image":
    """The picture in RGB; raises DatasetError when the image cannot be read."""
    from PIL import Image, ImageDraw

    picture = _scaled(open_image(found.image)).convert("RGBA")
    over = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(over)
    if found.answer == "Yes":
        _draw_grid(draw, picture.size, found.grid)
    for row, column in found.cells:
        box = _box(picture.size, found.grid, row, column)
        draw.rectangle(box, fill=(209, 36, 47, 40), outline=COLOURS["Yes"], width=3)
    return _captioned(Image.alpha_composite(picture, over).convert("RGB"), caption(found), COLOURS[found.answer])


def caption(found: Inspection) -> str:
    """The verdict in one line."""
    sure = f"P(yes) {chance(found)}" if chance(found) else ""
    said = (found.type, found.location) if found.answer == "Yes" else ()
    return " · ".join(filter(None, [WORDS[found.answer], *said, sure]))


def chance(found: Inspection) -> str:
    """P(yes) to two places, never as the certainty that it is not; empty where it is not known."""
    if found.p_yes is None:
        return ""
    return "<0.01" if found.p_yes < 0.005 else ">0.99" if found.p_yes > 0.995 else f"{found.p_yes:.2f}"


def _scaled(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    longer = max(image.size)
    scale = max(1, SMALLEST // longer) if longer < SMALLEST else min(1.0, LARGEST / longer)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _draw_grid(draw: "Draw", size: tuple[int, int], grid: int) -> None:
    width, height = size
    for step in range(1, grid):
        draw.line([(width * step // grid, 0), (width * step // grid, height)], fill=(255, 255, 255, 110))
        draw.line([(0, height * step // grid), (width, height * step // grid)], fill=(255, 255, 255, 110))


def _box(size: tuple[int, int], grid: int, row: int, column: int) -> tuple[int, int, int, int]:
    width, height = size
    left, top = width * column // grid, height * row // grid
    return left, top, width * (column + 1) // grid - 1, height * (row + 1) // grid - 1


def _captioned(picture: "Image.Image", text: str, colour: str) -> "Image.Image":
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(18)
    while font.getlength(text) > picture.width - 16 and len(text) > 1:
        text = text[:-2] + "…"
    whole = Image.new("RGB", (picture.width, picture.height + 30), colour)
    whole.paste(picture, (0, 0))
    ImageDraw.Draw(whole).text((8, picture.height + 4), text, fill="white", font=font)
    return whole
