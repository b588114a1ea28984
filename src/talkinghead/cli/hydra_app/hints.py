"""Explain configuration errors in one line, with the most similar valid key or choice."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from talkinghead.paths import conf_dir

_UNKNOWN_KEY = re.compile(r"Could not (?:override|delete from config\.) '(?P<key>[^']+)")
_GROUP_CHOICE = re.compile(r"(?P<group>[\w/]+)=(?P<choice>[\w./-]+)")
_MAX_SUGGESTIONS = 3


def explain(
    error: HydraException | OmegaConfBaseException, command: str, overrides: Sequence[str]
) -> str:
    """Return a one-line explanation of an error that a command with some overrides raised."""
    if isinstance(error, MissingMandatoryValue):
        return f"{command} needs {error.full_key}=... (talkinghead {command} --help explains it)"
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        return _explain_choice(error)
    if isinstance(error, OverrideParseException):
        return _explain_syntax(error, command, overrides)
    if unknown := _UNKNOWN_KEY.search(str(error)):
        return _explain_key(unknown["key"], command, _known_keys(command, overrides))
    if removed := [override for override in overrides if override.startswith("~")]:
        return f"{removed[0]}: {command} needs this setting: give it another value instead"
    return f"{error}: {error.__cause__}" if error.__cause__ else str(error)


def _explain_choice(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    names = list(error.options or [])
    if choice == "null" and "none" in names:
        return f"{group}=null: no such choice, did you mean none? ({', '.join(names)})"
    return f"{group}={choice}: no such choice{_did_you_mean(choice, names)} ({', '.join(names)})"


def _explain_syntax(error: OverrideParseException, command: str, overrides: Sequence[str]) -> str:
    key, equals, _ = error.override.partition("=")
    if not equals:
        return f"{error.override!r} is not key=value (talkinghead {command} --help lists the keys)"
    known, key = _known_keys(command, overrides), key.lstrip("+~")
    if key not in known:
        return _explain_key(key, command, known)
    return f"cannot parse {error.override!r}: put quotes around special characters: {key}=\"'...'\""


def _explain_key(key: str, command: str, known: Sequence[str]) -> str:
    same_end = [name for name in known if name.rpartition(".")[2] == key][:_MAX_SUGGESTIONS]
    hint = f", did you mean {' or '.join(same_end)}?" if same_end else _did_you_mean(key, known)
    return f"{command} has no key {key}{hint} (talkinghead {command} --help lists the keys)"


def _did_you_mean(word: str, candidates: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else ""


def _known_keys(command: str, overrides: Sequence[str]) -> list[str]:
    """Return the keys of the configuration with the selected choices, and its config groups."""
    folder = conf_dir()
    matches = filter(None, map(_GROUP_CHOICE.fullmatch, overrides))
    choices = [m[0] for m in matches if (folder / m["group"] / f"{m['choice']}.yaml").is_file()]
    with initialize_config_dir(str(folder), version_base="1.3"):
        try:
            config = compose(command, choices, return_hydra_config=True)
        except HydraException:
            config = compose(command, return_hydra_config=True)
    values: Any = OmegaConf.to_container(config)
    groups = values.pop("hydra")["runtime"]["choices"]
    return [*_flatten(values), *sorted(groups)]


def _flatten(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{prefix}{key}"
            yield from _flatten(inner, f"{prefix}{key}.")
