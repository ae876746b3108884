"""A clock that jumps, two that want the same at once, and bytes that somebody or something has changed."""

import json
import sys
from pathlib import Path

from infra.drills.commands import BUSY, Failed
from infra.drills.kills import KILLED
from infra.drills.scene import ANSWER, MODEL, NAME, Scene, faketime, flip, refused

COMPLETE = "COMPLETE"  # marks a checkpoint as whole
FORWARD, BACK = "+400d", "-2d"


def clock_jump(scene: Scene) -> str:
    """A year and more ahead at the first checkpoint of PA-SFT, and at the second one to two days ago."""
    clock = scene.folder / "clock"
    clock.write_text("+0\n")
    faked = {
        "LD_PRELOAD": str(faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    release = scene.release(**faked)
    release.until(scene.has(f".checkpoints/{NAME}/pa_sft/*/checkpoint-1"), "PA-SFT had a checkpoint")
    write(clock, FORWARD)
    release.until(scene.has(f".checkpoints/{NAME}/pa_sft/*/checkpoint-2"), "PA-SFT had a second checkpoint")
    write(clock, BACK)
    ended = release.ended()
    return refused(ended, "register", code=0)


def write(file: Path, text: str) -> None:
    """A file that is read all the time, whole at any moment."""
    beside = file.with_suffix(".new")
    beside.write_text(f"{text}\n")
    beside.rename(file)


def two_releases(scene: Scene) -> str:
    """Two people start the same release at the same moment."""
    both = (scene.release(), scene.release())
    ended = sorted((one.ended() for one in both), key=lambda one: one.code)
    refused(ended[0], "register", code=0)
    return refused(ended[1], "another release of this project runs", code=BUSY)


def two_promotions(scene: Scene) -> str:
    """Two versions: both to staging at once, then what is staging to production at once, by two people each time."""
    for tokens in (ANSWER, ANSWER - 16):
        scene.write_experiment(register={"name": scene.model}, evaluate={"max_new_tokens": tokens})
        refused(scene.release().ended(), code=0)
    numbers = [version.number for version in scene.versions()]
    if numbers != [1, 2]:
        raise Failed(f"expected versions 1 and 2 of {scene.registered}, found {numbers}")
    said: list[str] = []
    for choices, to in ((("1", "2"), "staging"), (("staging", "staging"), "production")):
        both = [
            scene.registry("promote", choice, "--to", to, "--who", who, "--why", "a drill")
            for choice, who in zip(choices, ("ada", "bob"), strict=True)
        ]
        said = [refused(one.ended(), f"{scene.registered} version", code=0) for one in both]
    history = json.loads(scene.registry("history", "--json").ended().text)
    productions = [entry for entry in history if entry["action"] == "promote"]
    live = [version for version in scene.versions() if "production" in version.aliases]
    if len(productions) != 1 or [version.number for version in live] != [productions[0]["version"]]:
        raise Failed(f"expected one promotion, and its version live; found {productions} and {[str(one) for one in live]}")
    return said[-1]


def corrupted_checkpoint(scene: Scene) -> str:
    """PA-SFT is killed, and a bit of its newest checkpoint's weights flips."""
    release = scene.release()
    release.until(scene.has(f".checkpoints/{NAME}/pa_sft/*/checkpoint-2/{COMPLETE}"), "there was a whole checkpoint")
    scene.kill("tasks.pa_sft")
    said = refused(release.ended(), KILLED)
    whole = [path.parent for path in scene.project.glob(f".checkpoints/{NAME}/pa_sft/*/checkpoint-*/{COMPLETE}")]
    flip_a_bit(max(whole, key=lambda path: int(path.name.partition("-")[2])) / MODEL)
    return said


def flip_a_bit(file: Path) -> None:
    """Change the lowest bit of the byte in the middle of a file."""
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(body)


def tampered_weights(scene: Scene) -> str:
    """Somebody changes one byte of the staged version's weights in the bucket, and one of the model in the project."""
    refused(scene.release().ended(), code=0)
    version = scene.staged()
    flip(scene.stack, scene.records.key(version.name, version.number, MODEL))
    scene.tampered.add(str(version))
    flip_a_bit(scene.project / "models" / NAME / "sc_grpo" / MODEL)
    by = ("--who", "ada", "--why", "a drill")
    said = refused(scene.registry("promote", "staging", "--to", "production", *by).ended(), "is not what was registered")
    # What the message tells to do.
    refused(scene.registry("archive", str(version.number), *by).ended(), code=0)
    refused(scene.command(sys.executable, "-m", "tasks.register", "--params", f"experiments/{NAME}/params.yaml").ended(), code=0)
    return said
