"""PostgreSQL's own programs behind two commands: make a cluster with its databases, and serve it."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from infra.stack.process import StackError

USER = "stack"
# PostgreSQL refuses to run as root. This user may still reach a folder that only root may: it serves a test on this machine.
REACH = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")


def serving(folder: Path, port: int) -> tuple[str, ...]:
    """The command that serves the cluster in `folder` on loopback."""
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": str(port)}
    return (
        *unprivileged(),
        program("postgres"),
        "-D",
        str(folder),
        *(word for key, value in options.items() for word in ("-c", f"{key}={value}")),
    )


def make_cluster(folder: Path, *, password: str, databases: Sequence[str]) -> None:
    """A cluster in `folder` with empty databases, unless it is there; made beside and then renamed, so that it is whole or not there."""
    if folder.is_dir():
        return
    made, secret = folder.with_name("made"), folder.with_name("password")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(mode=0o700)
    if user := unprivileged_user():
        os.chown(made, user.pw_uid, user.pw_gid)
    try:
        secret.touch(mode=0o600)
        secret.write_text(password)
        run(
            program("initdb"),
            "-D",
            str(made),
            f"--username={USER}",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "--encoding=UTF8",
            "--no-sync",
            "--no-locale",
        )
    finally:
        secret.unlink(missing_ok=True)
    run(program("postgres"), "--single", "-D", str(made), "postgres", given="".join(f"CREATE DATABASE {name};\n" for name in databases))
    made.rename(folder)


def run(*command: str, given: str = "") -> None:
    """Run one of PostgreSQL's programs to its end."""
    done = subprocess.run((*unprivileged(), *command), input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0 or "ERROR" in done.stderr:
        raise StackError(f"postgres: `{Path(command[0]).name}` failed: {done.stderr.strip() or done.stdout.strip()}")


def unprivileged() -> tuple[str, ...]:
    """What to put before a command so that root does not run it."""
    user = unprivileged_user()
    if user is None:
        return ()
    return (program("setpriv"), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *REACH)


def unprivileged_user() -> pwd.struct_passwd | None:
    """Who runs PostgreSQL where this process is root's; None where it is not."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def program(name: str) -> str:
    """The path of one of its programs, the newest where there are several; raises StackError that says what to install."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, versions)))
    if found is None:
        package = "util-linux" if name == "setpriv" else "postgresql"
        raise StackError(f"{name}: no such program on PATH or in /usr/lib/postgresql/*/bin. Install it: apt-get install {package}")
    return found
