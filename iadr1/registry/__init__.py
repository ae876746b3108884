"""Registered models: `models:/iad-r1@production` as a folder, and the life of a version. docs/registry.md; try `iadr1 registry --help`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iadr1.errors import ModelError

NAME = "iad-r1"
ALIASES = ("production", "staging")
SCHEME = "models:/"
_FORM = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True, slots=True)
class Found:
    """A registered model: what to call it, its folder, and the settings that it was evaluated with."""

    name: str
    folder: Path
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Named:
    """What `models:/NAME@ALIAS` or `models:/NAME/VERSION` names: a version, and the alias that led to it."""

    name: str
    version: int
    alias: str | None

    def __str__(self) -> str:
        return f"{self.name} version {self.version}" + (f" ({self.alias})" if self.alias else "")


def registered(uri: str) -> Found:
    """The version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` names; raises ModelError when there is none."""
    from iadr1.registry.store import Store

    name = named(uri)
    return Found(str(name), *Store.at(name.name).opened(name.version))


def live() -> Found:
    """The version that production points to, else staging; raises ModelError that says what to do when there is neither."""
    from iadr1.registry.store import WAYS, Store

    aliases = Store.at(NAME).history().state.aliases
    alias = next((alias for alias in ALIASES if aliases[alias] is not None), None)
    if alias is None:
        raise ModelError(f"the registry has no {' and no '.join(f'{NAME}@{name}' for name in ALIASES)}. {WAYS}")
    return registered(f"models:/{NAME}@{alias}")


def named(uri: str) -> Named:
    """The version that a URI names now; an alias is what the history says, not what a hand has set."""
    from iadr1.registry.store import WAYS, Store

    form = _FORM.fullmatch(uri)
    if form is None:
        raise ModelError(f"{uri}: a registered model is models:/NAME@ALIAS or models:/NAME/VERSION, such as models:/{NAME}@staging.")
    store, alias = Store.at(form["name"]), form["alias"]
    if alias is None:
        return Named(form["name"], store.version(int(form["version"])).number, None)
    version = store.history().state.aliases.get(alias)
    if version is None:
        raise ModelError(f"{uri}: the registry does not give it (no version is {alias}). Look with `iadr1 registry list`. {WAYS}")
    return Named(form["name"], version, alias)
