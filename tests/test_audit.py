"""Everything unfit is found and named: one error of each kind is planted in a sound folder."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iadr1.audit import KINDS, audited
from iadr1.cli import main
from iadr1.cli_data import LAYOUT_NAMES
from iadr1.datasets import LAYOUTS
from iadr1.images import open_image
from tests import layouts
from tests.layouts import mask, picture, table

PART = "set/bolt"
GOOD = f"{PART}/train/good/000.png"
HOLE = f"{PART}/test/hole/000.png"
HOLE_MASK = f"{PART}/ground_truth/hole/000_mask.png"


def sound(root: Path) -> Path:
    """A data set without a fault."""
    layouts.parts(root / "set", normal=3, defects=2, tests=2)
    return root


def png_of(width: int, height: int) -> bytes:
    """A PNG of few bytes that says to have so many pixels."""
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(bytes(1000)), b"IEND": b""}
    chunks = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def noise(side: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (side, side, 3), np.uint8))


def truncated(root: Path) -> None:
    noise(200).save(root / "cut.jpg")
    (root / GOOD).write_bytes((root / "cut.jpg").read_bytes()[:4000])
    (root / "cut.jpg").unlink()


def animated(root: Path) -> None:
    noise().save(root / GOOD, save_all=True, append_images=[noise().rotate(90)])


def values(root: Path) -> None:
    Image.fromarray(np.arange(24 * 24, dtype=np.uint8).reshape(24, 24)).save(root / HOLE_MASK)


def whole(root: Path) -> None:
    Image.fromarray(np.full((24, 24), 255, np.uint8)).save(root / HOLE_MASK)


def copied(source: str, target: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / target).write_bytes((root / source).read_bytes())

    return plant


def other_category(root: Path) -> None:
    layouts.parts(root / "set", normal=3, defects=2, tests=2, category="nut")
    copied("set/nut/test/good/000.png", f"{PART}/test/good/009.png")(root)


def reencoded(root: Path) -> None:
    """A training and a test image of one photograph, compressed anew."""
    photo = noise(32).resize((128, 128), Image.Resampling.BICUBIC)
    photo.save(root / PART / "train/good/900.png")
    photo.save(root / PART / "test/good/901.jpg", quality=80)


def exif(root: Path) -> None:
    image = noise()
    tags = image.getexif()
    tags[0x0112] = 6
    image.save(root / PART / "train/good/turned.jpg", exif=tags)


def linked(target: str, name: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / name).symlink_to((root / target).absolute())

    return plant


def leaves(root: Path) -> None:
    (root.parent / "elsewhere").mkdir()
    picture(root.parent / "elsewhere/a.png")
    linked("../elsewhere/a.png", f"{PART}/train/good/linked.png")(root)


def circle(root: Path) -> None:
    """Two folders, each with a link to the other."""
    (root / "one").mkdir()
    (root / "two").mkdir()
    linked("two", "one/to")(root)
    linked("one", "two/to")(root)


def long_path(root: Path) -> None:
    picture(root / "/".join([PART, "extra", *["d" * 100] * 3]) / "a.png")


def not_utf_8(root: Path) -> None:
    (root / GOOD).rename(root / PART / os.fsdecode(b"train/good/\xff.png"))


def mode(name: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        image = noise().convert("L").convert("I").convert(name) if name == "I;16" else noise().convert(name)
        image.save(root / PART / f"train/good/mode{'.jpg' if name == 'CMYK' else '.png'}")

    return plant


PLANTED: list[tuple[str, Callable[[Path], None], str]] = [
    ("empty-file", lambda root: (root / GOOD).write_bytes(b""), GOOD),
    ("corrupt", lambda root: (root / GOOD).write_bytes(b"not an image"), GOOD),
    ("truncated", truncated, GOOD),
    ("animated", animated, GOOD),
    ("too-large", lambda root: (root / GOOD).write_bytes(png_of(50_000, 50_000)), GOOD),
    ("blank", lambda root: picture(root / GOOD, grey=255), GOOD),
    ("mask-size", lambda root: mask(root / HOLE_MASK, side=30), HOLE_MASK),
    ("mask-empty", lambda root: mask(root / HOLE_MASK, empty=True), HOLE_MASK),
    ("mask-values", values, HOLE_MASK),
    ("mask-whole", whole, HOLE_MASK),
    ("missing-mask", lambda root: (root / HOLE_MASK).unlink(), HOLE),
    ("same-name", lambda root: picture(root / GOOD.replace("png", "jpg")), "train/good/000"),
    ("duplicate", copied(GOOD, f"{PART}/train/good/009.png"), "009.png"),
    ("duplicate-split", copied(GOOD, f"{PART}/test/good/009.png"), "good/0"),
    ("duplicate-label", copied(GOOD, f"{PART}/train_defect/scratch/000.png"), "000.png"),
    ("duplicate-category", other_category, "test/good/00"),
    ("near-duplicate", reencoded, "test/good/901.jpg"),
    ("link-loop", linked("set", f"{PART}/train/again"), "train/again"),
    ("link-loop", circle, "one/to/to"),
    ("link-outside", leaves, "linked.png"),
    ("unreadable", linked("nowhere", f"{PART}/train/good/gone.png"), "gone.png"),
    ("csv", lambda root: table(root / "manifest.csv", ["path", "size"], [GOOD, "3"]), "manifest.csv"),
    ("csv", lambda root: (root / "manifest.csv").write_text("path,group\na.png\n"), "manifest.csv"),
    ("json", lambda root: (root / "a.json").write_text("{"), "a.json"),
    ("json", lambda root: (root / "a.json").write_text("[" * 100_000), "a.json"),
    ("unused", lambda root: picture(root / PART / "extra.png"), "extra.png"),
    ("16-bit", mode("I;16"), "mode.png"),
    ("cmyk", mode("CMYK"), "mode.jpg"),
    ("alpha", mode("RGBA"), "mode.png"),
    ("palette", mode("P"), "mode.png"),
    ("exif-rotated", exif, "turned.jpg"),
    ("non-ascii", lambda root: picture(root / PART / "train/good/Prüfling 部品.png"), "部品.png"),
    ("non-ascii", not_utf_8, "\ufffd.png"),
    ("long-path", long_path, "a.png"),
]


def test_a_sound_folder_has_nothing(tmp_path: Path) -> None:
    audit = audited([sound(tmp_path)], layout="mvtec")
    assert (audit.findings, audit.samples, audit.files, audit.stops) == ((), 9, 13, False)


@pytest.mark.parametrize("kind, plant, file", PLANTED, ids=[f"{number}-{kind}" for number, (kind, _, _) in enumerate(PLANTED)])
def test_what_is_planted_is_found(tmp_path: Path, kind: str, plant: Callable[[Path], None], file: str) -> None:
    root = sound(tmp_path / "data")
    plant(root)
    audit = audited([root], layout="mvtec")
    found = [finding for finding in audit.findings if finding.kind == kind]
    assert len(found) >= 1 and file in found[0].file and found[0].reason, audit.findings
    assert audit.stops == any(KINDS[finding.kind][0] == "error" for finding in audit.findings)


def test_everything_at_once_is_found(tmp_path: Path) -> None:
    """No fault hides another one, but for those of the annotation itself, which hide what the samples are."""
    root = sound(tmp_path / "data")
    layouts.parts(root / "set", normal=30, defects=2, tests=2)
    picks = {"blank", "mask-size", "link-loop", "link-outside", "16-bit", "cmyk", "exif-rotated", "unused", "duplicate"}
    for kind, plant, _ in PLANTED:
        if kind in picks:
            plant(root)
    assert picks <= {finding.kind for finding in audited([root], layout="mvtec").findings}


def test_real_iads_views_are_looked_at(tmp_path: Path) -> None:
    layouts.real_iad(tmp_path)
    mask(tmp_path / "bolt/NG/scratch/S0002/bolt_C1_mask.png", empty=True)
    found = {finding.kind: finding for finding in audited([tmp_path], layout="real_iad").findings}
    assert found["hidden-defect"].file.endswith("bolt/NG/scratch/S0003")
    assert found["mask-empty"].file.endswith("S0002/bolt_C1_mask.png")


def test_an_annotation_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    layouts.visa(tmp_path)
    table(
        tmp_path / "split_csv/1cls.csv", ["object", "split", "label", "image", "mask"], ["candle", "test", "normal", "../../etc/a.png", ""]
    )
    findings = audited([tmp_path], layout="visa").findings
    assert [finding.kind for finding in findings if finding.severity == "error"] == ["layout"]
    assert "../../etc/a.png, which is outside of it" in findings[0].reason


def test_json_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    root = sound(tmp_path)
    with (root / "huge.json").open("wb") as file:
        file.truncate(1 << 30)  # takes no room on the disk
    (finding,) = audited([root], layout="mvtec").findings
    assert (finding.kind, finding.reason) == ("json", "1024 MB of JSON; at most 512 are read. Divide it by category.")


def test_a_folder_of_another_layout_is_an_error(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert [finding.kind for finding in audited([tmp_path], layout="sdd2").findings] == ["layout", "unused"]


def test_the_command_says_it_in_lines_and_in_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(sound(tmp_path))
    assert main(["data", "audit", root]) == 0
    assert capsys.readouterr().out == "13 files, 9 samples in 1 data sets: 0 errors, 0 warnings, 0 notes.\n"
    picture(tmp_path / GOOD, grey=0)
    assert main(["data", "audit", root]) == 1
    assert capsys.readouterr().out.startswith("error   blank                    1  images whose every pixel is the same\n    ")
    assert main(["data", "audit", root, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["kind"] == "blank"
    with pytest.raises(SystemExit) as exit:
        main(["data", "audit", str(tmp_path / "nowhere")])
    assert exit.value.code == 2


def test_masks_are_drawn_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layouts.yolo(tmp_path)
    assert main(["data", "masks", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"2 masks drawn in {tmp_path}/masks.\n"
    assert main(["data", "audit", str(tmp_path), "--layout", "yolo"]) == 0


def test_the_command_knows_every_layout() -> None:
    assert set(LAYOUT_NAMES) == LAYOUTS.keys()


def test_unusual_images_are_shown_as_they_are_meant(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    shown = np.asarray(open_image(tmp_path / "deep.png"))[..., 0].astype(int)
    assert abs(shown - ramp / 257).max() <= 1
    Image.fromarray(ramp // 16).save(tmp_path / "camera.png")
    assert abs(np.asarray(open_image(tmp_path / "camera.png"))[..., 0].astype(int) - ramp / 257).max() <= 1
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert open_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    red, green, blue = open_image(tmp_path / "red.jpg").getpixel((4, 4))
    assert red > 200 and green < 60 and blue < 60
    exif(sound(tmp_path / "data"))
    Image.new("RGB", (40, 20)).save(tmp_path / "wide.jpg", exif=Image.open(tmp_path / "data" / PART / "train/good/turned.jpg").getexif())
    assert open_image(tmp_path / "wide.jpg").size == (20, 40)
