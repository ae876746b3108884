"""Commands under watch: which addresses beyond this machine they, and all that they start, try to reach.

`guarded` notes and forbids it inside every Python process (an audit hook, which no module can take off); `traced` sees the system calls of any
program, with strace, and only notes.
"""

import ipaddress
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Telemetry sees a CI or a test by these and stays silent by itself: what a person's machine would send has to show here.
HIDES = ("CI", "PYTEST_CURRENT_TEST", "GITHUB_ACTIONS", "BUILDKITE", "JENKINS_URL", "TRAVIS", "CIRCLECI")
HOOK = """
import os, sys

def _watch(event, arguments):
    if event == "socket.connect":
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event == "socket.sendto":
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and not host.startswith("127.") and host not in ("localhost", "::1", "0.0.0.0", "::", os.uname().nodename):
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{host} {sys.argv[0]}\\n")
        raise OSError(f"a test forbids {host}")

sys.addaudithook(_watch)
"""
STARTS = "import tasks._environment; tasks._environment.start()\n"  # what `make setup` puts into a .pth file
CONNECT = re.compile(r'connect\(\d+, \{sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?(?:inet_addr\("|AF_INET6, ")([^"]+)"')


def guarded(folder: Path, *command: str, protected: bool = True, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What the command did, and the addresses that Python processes of it were kept from; `protected` as `make setup` protects .venv."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(HOOK + (STARTS if protected else ""))
    noted = folder / "noted"
    done = subprocess.run(command, capture_output=True, text=True, env=_plain(site, WATCHED=str(noted), **environment), cwd=folder)
    return done, noted.read_text().splitlines() if noted.is_file() else []


def traced(folder: Path, *command: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """What the command did, and every address and port beyond loopback that a process of it asked the system for."""
    site, noted = folder / "site", folder / "noted"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(STARTS)
    watched = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect", "-o", str(noted), *command)
    done = subprocess.run(watched, capture_output=True, text=True, env=_plain(site, **environment), cwd=folder)
    return done, beyond_loopback(noted.read_text())


def beyond_loopback(trace: str) -> set[str]:
    """Addresses and ports in strace's lines; a question to a name server counts wherever that is."""
    found = {(address, int(port)) for port, address in CONNECT.findall(trace)}
    return {f"{address}:{port}" for address, port in found if port == 53 or not ipaddress.ip_address(address.split("%")[0]).is_loopback}


def _plain(site: Path, **environment: str) -> Mapping[str, str]:
    from tasks._environment import TELEMETRY_OFF

    hidden = {*HIDES, *TELEMETRY_OFF, "MLFLOW_TRACKING_URI"}
    kept = {name: value for name, value in os.environ.items() if name not in hidden and "proxy" not in name.lower()}
    path = [str(Path(sys.executable).parent), kept["PATH"]]
    return {**kept, "PATH": os.pathsep.join(path), "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), **environment}
