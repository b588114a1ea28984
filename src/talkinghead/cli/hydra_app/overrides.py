"""Convert `key=value` arguments to Hydra overrides whose paths and texts are literal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from talkinghead.cli.hydra_app.literal_keys import NAMED_PATHS_KEYS, PATH_KEYS, TEXT_KEYS

ALIASES = {"evaluate": {"data": "corpus"}}
"""Alternative names of a command's keys. Hydra itself would read `data` as the config group."""

_ASSIGNMENT = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[\w.]+)=(?P<value>.*)", re.DOTALL)
_SWEEP = re.compile(r"(choice|glob)\(.*\)", re.DOTALL)
_WORDS = re.compile(r"[^\s,'\"]+(,[^\s,'\"]+)+")
_NAMED_VOICE = re.compile(r"voices\.\w+\.")
_MULTIRUN = ("-m", "--multirun")


def to_hydra(arguments: Sequence[str], command: str = "") -> list[str]:
    """Return Hydra's arguments, with the values of path and text keys quoted.

    Commas, quotes, `=`, `$` and braces in such a value are plain characters. `null`, a list in
    brackets, and for `NAMED_PATHS_KEYS` a mapping in braces keep their meaning. A leading `~/` of
    a path is the home folder. With `-m`, `choice(...)` and `glob(...)` keep their meaning, and a
    comma separates values: of a path unless a file has the whole name, of a text where there is no
    space.

    Args:
        arguments: The command line without the program and the command.
        command: The command, for `ALIASES`.

    Returns:
        The arguments. `-m` comes first because Hydra does not accept it between two overrides.
    """
    multirun = any(argument in _MULTIRUN for argument in arguments)
    rest = [
        _quote_argument(argument, multirun, command)
        for argument in arguments
        if argument not in _MULTIRUN
    ]
    return ["-m", *rest] if multirun else rest


def quote(value: str) -> str:
    """Return a string as a literal of Hydra's grammar, without OmegaConf interpolation."""
    no_interpolation = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
    return str(QuotedString(no_interpolation, Quote.single).with_quotes())


def _quote_argument(argument: str, multirun: bool, command: str) -> str:
    match = _ASSIGNMENT.fullmatch(argument)
    if match is None:
        return argument
    key, value = ALIASES.get(command, {}).get(match["key"], match["key"]), match["value"]
    kind = _NAMED_VOICE.sub("tts.", key)
    if value not in ("", "null") and not (multirun and _SWEEP.fullmatch(value)):
        if kind in PATH_KEYS:
            value = _quote_path(value, multirun, kind in NAMED_PATHS_KEYS)
        elif kind in TEXT_KEYS and not (multirun and _WORDS.fullmatch(value)):
            value = quote(value)
    return f"{match['prefix']}{key}={value}"


def _quote_path(value: str, multirun: bool, may_be_named: bool) -> str:
    if _is_wrapped(value, "[]") or (may_be_named and _is_wrapped(value, "{}")):
        return value
    several = multirun and "," in value and not _exists(value)
    parts = value.split(",") if several else [value]
    return ",".join(quote(_expand_home(part)) for part in parts)


def _is_wrapped(value: str, brackets: str) -> bool:
    """Return whether a value is a list or a mapping and not the name of an existing file."""
    return value.startswith(brackets[0]) and value.endswith(brackets[1]) and not _exists(value)


def _expand_home(value: str) -> str:
    """Expand `~`, which shells leave alone in `face=~/photo.jpg`."""
    return str(Path(value).expanduser()) if value == "~" or value.startswith("~/") else value


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # longer than a file name may be, or with a NUL
        return False
