"""Makes a person's `key=value` arguments Hydra's: paths and texts are literal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

TEXT_KEYS = frozenset({"text", "label", "system_prompt", "ask_again"})
PATH_KEYS = frozenset(
    {"face", "audio", "output", "input", "jobs", "generated", "reference", "texts", "book"}
)
NAMED_PATHS_KEYS = frozenset({"generated"})
"""Path keys that take several paths with a name for each: `generated={a: PATH, b: PATH}`."""
ALIASES = {"evaluate": {"data": "corpus"}}
"""Other names of a command's keys. (`data` itself Hydra takes for the group of that name.)"""
PATH_NAME = re.compile(
    r"(\w+_)?(dir|path|checkpoint|corpus)|dirpath|sync_expert|init_from|face_encoder_weights"
)
"""Last parts of keys at any depth that are paths too: `data.corpus_dir`, `sync.checkpoint`."""

_ASSIGNMENT = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[\w.]+)=(?P<value>.*)", re.DOTALL)
_SWEEP = re.compile(r"(choice|glob)\(.*\)", re.DOTALL)
_MULTIRUN = ("-m", "--multirun")


def to_hydra(arguments: Sequence[str], command: str = "") -> list[str]:
    """Quotes the values of path and text keys: commas, quotes, `=`, `$` and braces are characters.

    `null` and, for a path, a list in brackets stay Hydra's; so do names in braces for the keys of
    `NAMED_PATHS_KEYS`. With `-m` a path may be several, separated by commas (unless a file of the
    whole name exists), and `choice(...)` and `glob(...)` work. `~` is the home folder.

    Args:
        arguments: as typed, without the program and the command.
        command: whose keys they are, for `ALIASES`.

    Returns:
        Hydra's arguments. `-m` comes first: Hydra does not find it between two overrides.
    """
    multirun = any(argument in _MULTIRUN for argument in arguments)
    aliases = ALIASES.get(command, {})
    rest = [
        _quote_argument(_rename(argument, aliases), multirun)
        for argument in arguments
        if argument not in _MULTIRUN
    ]
    return ["-m", *rest] if multirun else rest


def quote(value: str) -> str:
    """A string as one literal value in Hydra's grammar, safe from OmegaConf's interpolation too."""
    no_interpolation = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
    return str(QuotedString(no_interpolation, Quote.single).with_quotes())


def _rename(argument: str, aliases: Mapping[str, str]) -> str:
    key, equals, value = argument.partition("=")
    return f"{aliases.get(key, key)}{equals}{value}" if equals else argument


def _quote_argument(argument: str, multirun: bool) -> str:
    match = _ASSIGNMENT.fullmatch(argument)
    if match is None:
        return argument
    key, value = match["key"], match["value"]
    if key in TEXT_KEYS:
        is_path = False
    elif key in PATH_KEYS or PATH_NAME.fullmatch(key.rpartition(".")[2]):
        is_path = True
    else:
        return argument
    if value in ("", "null") or (multirun and _SWEEP.fullmatch(value)):
        return argument
    if key in NAMED_PATHS_KEYS and _is_wrapped(value, "{}"):
        return argument
    return f"{match['prefix']}{key}={_quote_path(value, multirun) if is_path else quote(value)}"


def _quote_path(value: str, multirun: bool) -> str:
    if _is_wrapped(value, "[]"):
        return value
    several = multirun and "," in value and not _exists(value)
    return ",".join(
        quote(_expand_home(part)) for part in (value.split(",") if several else [value])
    )


def _is_wrapped(value: str, brackets: str) -> bool:
    """A list or a mapping, unless a file has that name."""
    return value.startswith(brackets[0]) and value.endswith(brackets[1]) and not _exists(value)


def _expand_home(value: str) -> str:
    """No shell expands the tilde of `face=~/photo.jpg`."""
    if value != "~" and not value.startswith("~/"):
        return value
    return str(Path(value).expanduser())


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # too long for a file name, or with a NUL
        return False
