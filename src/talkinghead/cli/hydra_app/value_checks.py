"""Check the values of a configuration before the command begins its work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from talkinghead.cli.hydra_app.yaml_files import read_mapping
from talkinghead.errors import UsageError
from talkinghead.paths import conf_dir
from talkinghead.value_rules import ValueRule, accepts, explain_value

_RULES = Path(__file__).with_name("value_rules.json")


def check_values(cfg: DictConfig, command: str, choices: Mapping[str, str | None]) -> None:
    """Check every value of a configuration that has a rule.

    Args:
        cfg: The composed configuration.
        command: Name of the command and of its configuration.
        choices: The selected choice of each config group, as Hydra reports them.

    Raises:
        UsageError: A value has another type than expected, is out of range or no valid choice.
    """
    for key, rules in _rules(command, choices):
        try:
            value = OmegaConf.select(cfg, key, throw_on_resolution_failure=True)
        except OmegaConfBaseException:  # The command reports the error if it needs the value.
            continue
        is_given = value is not None or _has_key(cfg, key)
        if isinstance(value, str) and value == "???":
            continue
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value)
        if is_given and not accepts(rules, value):
            raise UsageError(
                f"{explain_value(key, value, rules)} (talkinghead {command} --help explains it)"
            )


def _has_key(cfg: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not OmegaConf.is_dict(node) or name not in node:
        return False
    # An interpolation of a setting of Hydra is null outside of a run.
    return not (OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name))


def _rules(
    command: str, choices: Mapping[str, str | None]
) -> Iterator[tuple[str, tuple[ValueRule, ...]]]:
    """Yield the keys of a command and of the selected choices with their rules."""
    yield from _rules_of_file(f"{command}.yaml")
    for group, choice in choices.items():
        # "tts@voices.piper" is a choice of the group tts whose keys are in voices.piper.
        folder, _, package = group.partition("@")
        if choice is None or group.startswith("hydra/"):
            continue
        name = f"{folder}/{choice}.yaml"
        prefix = "" if has_root_keys(name) else f"{(package or folder).replace('/', '.')}."
        for key, rules in _rules_of_file(name):
            yield f"{prefix}{key}", rules


def _rules_of_file(name: str) -> Iterator[tuple[str, tuple[ValueRule, ...]]]:
    """Yield the rules of a file and of the files that it extends; a later one has precedence."""
    found: dict[str, Any] = {}
    config = read_mapping(conf_dir() / name)
    for entry in config.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            found |= dict(_rules_of_file(f"{Path(name).parent / entry}.yaml"))
    # An experiment overrides keys of other files, which have the rules.
    if "/" not in name or not has_root_keys(name):
        found |= dict(_rules_of_defaults(config, "", name.startswith("trainer/")))
    for key, values in rules_by_file().get(name, {}).items():
        rules = tuple(map(ValueRule.from_dict, values))
        # null as the default of a file means that the value was not given.
        is_unset = config is not None and config.get(key, "") is None
        found[key] = (*rules, ValueRule("null")) if is_unset else rules
    yield from found.items()


def _rules_of_defaults(
    values: Mapping[str, Any], prefix: str, only_switches: bool
) -> Iterator[tuple[str, tuple[ValueRule, ...]]]:
    """Yield rules from the types of the defaults: a bool or a number must keep its type.

    Lightning's numbers may also be texts or lists, such as `trainer.devices`.
    """
    for name, value in values.items():
        if name in ("defaults", "hydra") or name.startswith("_"):
            continue
        if isinstance(value, dict):
            yield from _rules_of_defaults(value, f"{prefix}{name}.", only_switches)
        elif isinstance(value, bool) or (isinstance(value, int | float) and not only_switches):
            # A loss weight may also be a schedule.
            kinds = ("bool", "null") if isinstance(value, bool) else ("float", "mapping", "null")
            yield f"{prefix}{name}", tuple(map(ValueRule, kinds))


def has_root_keys(name: str) -> bool:
    """Return whether the keys of a configuration file begin at the root, not at its group."""
    path = conf_dir() / name
    if "/" not in name or not path.is_file():
        return "/" not in name
    return path.read_text(encoding="utf-8").startswith("# @package _global_")


@cache
def rules_by_file() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return the rules of the keys of each file, as JSON values (see `ValueRule.to_dict`)."""
    rules: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(_RULES.read_text("utf-8"))
    return rules
