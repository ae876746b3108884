"""Writes docs/backbones.md from the records of the families. Run `python docs/make_backbones.py`."""

from pathlib import Path

from iadr1.backbone_tables import checkpoints, parts

HERE = Path(__file__).parent


def document() -> str:
    """The page, with its tables filled in."""
    template = (HERE / "backbones.template.md").read_text(encoding="utf-8")
    return template.replace("{checkpoints}", checkpoints()).replace("{parts}", parts())


if __name__ == "__main__":
    (HERE / "backbones.md").write_text(document(), encoding="utf-8")
