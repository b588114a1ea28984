"""Convert `key=value` arguments to Hydra overrides that take paths and texts literally."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Quote, QuotedString
from hydra.errors import HydraException

from talkinghead.cli.hydra_app.value_checks import has_root_keys, rules_by_file
from talkinghead.errors import UsageError
from talkinghead.paths import conf_dir, expand_home

ALIASES = {"evaluate": {"data": "corpus"}}
"""Alternative names of keys, by command. Hydra would take `data` for the config group."""

# Keys of Hydra that are paths.
_HYDRA_PATHS = frozenset({"hydra.run.dir", "hydra.sweep.dir", "run_dir"})
_ASSIGNMENT = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[\w./@]+)=(?P<value>.*)", re.DOTALL)
_SWEEP = re.compile(r"(choice|glob)\(.*\)", re.DOTALL)
# A path in a list or a mapping.
_HOME_ITEM = re.compile(r"(?<=[\[,:{\s])~/[^,\]}]*")
# Values that Hydra does not take for the name of a choice.
_NO_NAME = re.compile(
    r"null|true|false|nan|[-+]?(?:inf|[\d.]+(?:e[-+]?\d+)?)|\{.*\}", re.I | re.DOTALL
)
_WORDS = re.compile(r"[^\s,'\"]+(,[^\s,'\"]+)+")


def to_hydra(arguments: Sequence[str], command: str = "") -> list[str]:
    """Convert the arguments of a command to arguments for Hydra, with paths and texts quoted.

    In paths and texts, commas, quotes, `=`, `$` and braces are plain characters. `null`, lists in
    brackets and, for keys of named paths, mappings in braces are parsed as usual. A leading `~/` of
    a path is the home folder.

    With `-m`, `choice(...)` and `glob(...)` are parsed as usual, and commas separate values, except
    in a path that exists and in a text that contains spaces or quotes. `-m` is moved to the front,
    because Hydra does not accept it between two overrides.
    """
    rest = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    multirun = len(rest) < len(arguments)
    return ["-m"] * multirun + [_quote_argument(argument, multirun, command) for argument in rest]


def check_flags(arguments: Sequence[str], command: str) -> None:
    """Refuse flags that Hydra does not know, for which it would print its own usage.

    Raises:
        UsageError: A flag is unknown, or its value is missing or wrong.
    """
    message = io.StringIO()
    try:
        with redirect_stderr(message):
            _, unknown = get_args_parser().parse_known_args(list(arguments))
    except SystemExit as error:
        reason = message.getvalue().strip().rpartition("error: ")[2]
        raise UsageError(f"{reason}: see talkinghead {command} --help") from error
    if flags := [argument for argument in unknown if argument.startswith("-")]:
        raise UsageError(f"there is no option {flags[0]}: see talkinghead {command} --help")
    if nameless := [argument for argument in arguments if argument.startswith("=")]:
        raise UsageError(
            f"{nameless[0]!r} is not key=value (talkinghead {command} --help lists the keys)"
        )


def check_outputs(overrides: Sequence[str], command: str) -> None:
    """Refuse a sweep (`-m`) whose runs would overwrite the output of each other.

    Shards may have a common output, and the number of names that match a `glob` is not known yet.

    Raises:
        UsageError: There are fewer values of `output` than runs.
    """
    if "-m" not in overrides:
        return
    given = [override for override in overrides if not override.startswith("-")]
    try:
        parsed = OverridesParser.create().parse_overrides(given)
    except HydraException:
        return  # Hydra reports it.
    counts = {
        override.key_or_group: len(set(override.sweep_string_iterator()))
        for override in parsed
        if override.is_discrete_sweep() and not isinstance(override.value(), Glob)
    }
    outputs = [override for override in parsed if override.key_or_group == "output"]
    num_runs, num_outputs = math.prod(counts.values()), counts.get("output", 1)
    if not outputs or outputs[-1].value() is None or "shard" in counts or num_runs <= num_outputs:
        return
    advice = "give a list, jobs=..., with an output for each" if command == "predict" else ""
    raise UsageError(
        f"-m: {num_runs} runs would write {num_outputs} output{'s' * (num_outputs > 1)} and "
        f"overwrite each other's: {advice or 'start each run with a different output'}"
    )


def quote(value: str) -> str:
    """Return a string as a literal of Hydra's grammar, without OmegaConf interpolation."""
    no_interpolation = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
    return str(QuotedString(no_interpolation, Quote.single).with_quotes())


@cache
def _literal_keys() -> tuple[set[str], set[str], set[str]]:
    """Return the keys of paths, of named paths `{a: PATH, b: PATH}`, and of any text."""
    paths, mappings, texts = set(_HYDRA_PATHS), set[str](), set[str]()
    for name, keys in rules_by_file().items():
        prefix = "" if has_root_keys(name) else f"{name.rpartition('/')[0].replace('/', '.')}."
        for key, rules in keys.items():
            given = [rule for rule in rules if rule["kind"] != "null"]
            if any(map(_admits_path, given)):
                paths.add(prefix + key)
            if any(rule["kind"] == "mapping" for rule in given):
                mappings.add(prefix + key)
            if given and all(map(_is_text, given)):
                texts.add(prefix + key)
    return paths, mappings & paths, texts - paths


def _admits_path(rule: Mapping[str, Any]) -> bool:
    return rule["kind"] == "path" or any(map(_admits_path, rule.get("items", ())))


def _is_text(rule: Mapping[str, Any]) -> bool:
    choices = rule.get("choices", ())
    return rule["kind"] == "str" or bool(choices and all(isinstance(c, str) for c in choices))


def _quote_argument(argument: str, multirun: bool, command: str) -> str:
    match = _ASSIGNMENT.fullmatch(argument)
    if match is None:
        return argument
    key, value = ALIASES.get(command, {}).get(match["key"], match["key"]), match["value"]
    # `~tts +tts={_target_: ...}` replaces a choice by a configuration.
    if _is_group(key) and not (match["prefix"] and value.startswith("{")):
        names = value.split(",") if multirun else [value]
        value = ",".join(quote(name) if _NO_NAME.fullmatch(name) else name for name in names)
        return f"{match['prefix']}{key}={value}"
    paths, named_paths, texts = _literal_keys()
    if value not in ("", "null") and not (multirun and _SWEEP.fullmatch(value)):
        if key in paths:
            value = _quote_path(value, multirun, key in named_paths)
        elif key in texts and not (multirun and _WORDS.fullmatch(value)):
            value = quote(value)
    return f"{match['prefix']}{key}={value}"


@cache
def _is_group(key: str) -> bool:
    """Return whether a key is a config group: `tts`, `tts@voices.piper`, `hydra/launcher`."""
    group = key.partition("@")[0]
    return group.startswith("hydra/") or (conf_dir() / group).is_dir()


def _quote_path(value: str, multirun: bool, may_be_named: bool) -> str:
    exists, ends = _exists(value), value[0] + value[-1]
    if not exists and (ends == "[]" or (ends == "{}" and may_be_named)):
        # Shells do not expand `~` in `face=~/photo.jpg` or in lists.
        return _HOME_ITEM.sub(lambda match: quote(expand_home(match[0].rstrip())), value)
    parts = value.split(",") if multirun and not exists else [value]
    return ",".join(quote(expand_home(part)) for part in parts)


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # The value is too long for a file name or contains NUL.
        return False
