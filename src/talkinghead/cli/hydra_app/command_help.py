"""Format the help of a command from the comments of its configuration files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import yaml

from talkinghead.cli.hydra_app.yaml_files import parse_mapping, read_mapping
from talkinghead.paths import conf_dir

_FOOTER = """\
talkinghead {command} --cfg job      the configuration of the command, without running it
talkinghead {command} -m KEY=1,2     one run for each value
talkinghead {command} --hydra-help   Hydra's own options
talkinghead {command} output_format=json   one JSON object on stdout; all text goes to stderr
"""
_KEY = re.compile(r"^(?=\w+:)", re.MULTILINE)
_HIDDEN = re.compile(r"^ *(# @package.*|# \[[\w.]+\]|_(target|convert)_:.*)\n", re.MULTILINE)


def format_help(command: str, arguments: Sequence[str] = ()) -> str:
    """Return the help of a command: its keys and its config groups with their keys and defaults.

    Args:
        command: The name of the command and of its configuration.
        arguments: The other arguments; `group=choice` selects the choice to describe.
    """
    path = conf_dir() / f"{command}.yaml"
    text = path.read_text(encoding="utf-8")
    header = parse_mapping(text).get("hydra", {}).get("help", {}).get("header", command)
    parts = [header.rstrip(), "keys (KEY=VALUE), with their defaults:"]
    # Skip the first comment of the file, which repeats the header.
    body = _body(text[max(text.find("defaults:"), 0) :])
    parts.append(textwrap.indent(body, "  "))
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    choices = _choices(path)
    for group in choices.keys() & given:
        choices |= _choices(conf_dir() / group / f"{given[group]}.yaml")
    groups = [_describe_group(g, given.get(g, c)) for g, c in choices.items() if "hydra/" not in g]
    if groups:
        parts.append("choices (GROUP=NAME), with the keys of the selected one:")
    parts += [textwrap.indent(group, "  ") for group in groups]
    parts.append(_FOOTER.format(command=command))
    return "\n\n".join(parts)


def _choices(path: Path) -> dict[str, str | None]:
    """Return the config-group choices of a file and of the files that it extends."""
    found: dict[str, str | None] = {}
    for entry in read_mapping(path).get("defaults", []):
        if isinstance(entry, dict):
            found |= {name.removeprefix("override /"): choice for name, choice in entry.items()}
        else:
            found |= _choices(path.with_name(f"{entry}.yaml"))
    return found


def _describe_group(group: str, choice: str | None) -> str:
    # "tts@voices.piper" is a choice of the group tts whose keys are in voices.piper.
    folder = conf_dir() / group.partition("@")[0]
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    path = folder / f"{choice}.yaml"
    if choice is None or not path.is_file():
        summaries = (f"  {name}: {_summary(folder / f'{name}.yaml')}" for name in names)
        return "\n".join([f"{group}=null", *summaries])
    others = ", ".join(name for name in names if name != choice)
    title = f"{group}={choice}   (or {others})" if others else f"{group}={choice}"
    return "\n".join([title, textwrap.indent(_option_body(path, group.split("@")[-1]), "  ")])


def _option_body(path: Path, group: str) -> str:
    """Return the keys of a config-group choice, after the keys of the choices that it extends."""
    text = path.read_text(encoding="utf-8")
    defaults = parse_mapping(text).get("defaults", [])
    bases = [path.with_name(f"{entry}.yaml") for entry in defaults if isinstance(entry, str)]
    bodies = [_option_body(base, group) for base in bases if base.is_file()]
    body = _body(text)
    if not text.startswith("# @package _global_"):
        body = _KEY.sub(f"{group.replace('/', '.')}.", body)
    return "\n".join([*bodies, body])


def _summary(path: Path) -> str:
    text = _HIDDEN.sub("", path.read_text(encoding="utf-8"))
    return text.partition("\n")[0].removeprefix("# ")


def _body(text: str) -> str:
    """Return the text of a file without defaults list, Hydra settings and `_target_` lines."""
    lines = text.splitlines()
    root = yaml.compose(text)
    keys = root.value if isinstance(root, yaml.MappingNode) else []
    for key, value in reversed(keys):
        if key.value in ("defaults", "hydra"):
            start, stop = key.start_mark.line, value.end_mark.line + (value.end_mark.column > 0)
            # For the YAML parser, the comments before the next key are part of the value.
            while stop > start + 1 and not lines[stop - 1].startswith((" ", "-")):
                stop -= 1
            del lines[start:stop]
    return re.sub(r"\n{3,}", "\n\n", _HIDDEN.sub("", "\n".join(lines) + "\n")).strip("\n")
