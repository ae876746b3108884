#!/usr/bin/env bash
# Rewrite the locks from pyproject.toml: `make lock`, or `make lock UPGRADE=1` for newer versions than those that stand in them.
set -euo pipefail
cd "$(dirname "$0")/.."
# A wheel folder of this machine must not put its local versions (torch 2.13.0+cpu) into the locks.
unset PIP_FIND_LINKS UV_FIND_LINKS

lock() { # profile, further options
    local profile=$1; shift
    .venv/bin/uv pip compile pyproject.toml --extra "$profile" --extra dev --extra stack --python-version 3.11 --python-platform linux --no-annotate --no-header \
        --excludes "requirements/$profile-excludes.txt" ${UPGRADE:+--upgrade} --quiet --output-file "requirements/$profile.txt" "$@"
}
lock cpu --overrides requirements/cpu-overrides.txt
lock gpu
