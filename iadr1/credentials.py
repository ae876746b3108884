"""What looks like a key, a token or a password: refused in parameters, replaced in logs. Secrets come from the environment, by name."""

import re
from collections.abc import Iterator, Mapping

FORMS = {
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of the Hugging Face hub": r"\bhf_[A-Za-z0-9]{30,}",
    "a key of OpenAI or Anthropic": r"\bsk-[A-Za-z0-9_-]{20,}",
    "a token of GitHub": r"\b(?:gh[opsur]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})",
    "a token of GitLab": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a token of Slack": r"\bxox[abeprs]-[A-Za-z0-9-]{10,}",
    "a key of Google": r"\bAIza[A-Za-z0-9_-]{35}",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a password in an address": r"(?<=://)[^\s/:@\"'<>{}$*]*:[^\s/:@\"'<>{}$*]+(?=@)",
}
_ANY = re.compile("|".join(f"(?P<form_{at}>{form})" for at, form in enumerate(FORMS.values())))
_NAME = re.compile(
    r"(?i)(password|passwd|secret|api_?key|access_?key|private_?key|auth_string|(?:hub|auth|access|session|api)_token)$|^hf_token$"
)
SHORTEST = 6  # of a value that is looked for in texts: a shorter one would be found in words


def kind_of(text: str) -> str | None:
    """What a text holds that must stay secret, None when nothing in it looks so."""
    found = _ANY.search(text)
    return list(FORMS)[int(str(found.lastgroup).removeprefix("form_"))] if found else None


def is_secret_name(name: str) -> bool:
    """Whether what goes by this name (of a key, of an environment variable) is a secret."""
    return _NAME.search(name) is not None


def redacted(text: str, environment: Mapping[str, str]) -> str:
    """The text with `$NAME` in place of what secret variables of the environment hold, and `***` in place of what else looks like a secret."""
    for name, value in _secrets(environment):
        text = text.replace(value, f"${name}")
    return _ANY.sub("***", text)


def unsafe(tree: object, at: tuple[str, ...] = ()) -> Iterator[str]:
    """What must not stand in a parameter file: secrets, which are not repeated, and leave for a model to run code of its own."""
    name = ".".join(at)
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from unsafe(value, (*at, str(key)))
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from unsafe(value, (*at, str(place)))
    elif isinstance(tree, str) and (kind := kind_of(tree) or (at and is_secret_name(at[-1]) and "a secret")):
        yield (
            f"{name} holds what looks like {kind}. Parameters are kept in git, DVC and MLflow: remove it, revoke it if it is real, and put the "
            "new one into the environment (docs/security.md)."
        )
    elif tree and at and at[-1] == "trust_remote_code":
        yield (
            f"{name}: no model runs code of its own here. Take a family that `iadr1 backbones` lists, whose code transformers has, at the "
            "commit that stands there."
        )


def _secrets(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The longest first: one may be a part of another."""
    found = [(name, value) for name, value in environment.items() if is_secret_name(name) and len(value) >= SHORTEST]
    yield from sorted(found, key=lambda pair: -len(pair[1]))
