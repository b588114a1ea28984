"""Format the help of a command from the comments of its configuration files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from talkinghead.paths import conf_dir

_FOOTER = """\
talkinghead {command} --cfg job      the configuration that it would run with
talkinghead {command} -m KEY=1,2     one run for each value
talkinghead {command} --hydra-help   Hydra's own options
"""
_KEY = re.compile(r"^(?=\w+:)", re.MULTILINE)
_HIDDEN = re.compile(r"^ *(# \[[\w.]+\]|_(target|convert)_:.*)\n", re.MULTILINE)
_TITLE = re.compile(r"(?P<group>[\w/]+)(@(?P<package>[\w.]+))?")


def format_help(command: str, arguments: Sequence[str] = ()) -> str:
    """Return what a command takes: its keys, its config groups and their keys, with defaults.

    Args:
        command: The command, which is its configuration's name.
        arguments: The other arguments; `group=choice` selects the choice that is described.
    """
    text = (conf_dir() / f"{command}.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    header = config.get("hydra", {}).get("help", {}).get("header", f"talkinghead {command}")
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    parts = [header.rstrip(), "keys (KEY=VALUE), with their defaults:"]
    # The comment that opens the file says the same as the header.
    body = _body(text[max(text.find("defaults:"), 0) :])
    parts.append(textwrap.indent(body, "  "))
    groups = list(_groups(config.get("defaults", []), given))
    if groups:
        parts.append("choices (GROUP=NAME), with the keys of the selected one:")
    parts += [textwrap.indent(group, "  ") for group in groups]
    parts.append(_FOOTER.format(command=command))
    return "\n\n".join(parts)


def _groups(defaults: list[object], given: dict[str, str]) -> Iterator[str]:
    for entry in defaults:
        if not isinstance(entry, dict):
            continue
        ((name, choice),) = entry.items()
        match = _TITLE.fullmatch(name)
        if match is not None:
            selected = given.get(name, choice)
            yield _describe_group(match["group"], match["package"], selected)


def _describe_group(group: str, package: str | None, choice: str | None) -> str:
    folder = conf_dir() / group
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    others = [name for name in names if name != choice]
    title = f"{group}{f'@{package}' if package else ''}={choice or 'null'}"
    title = f"{title}   (or {', '.join(others)})" if others else title
    path = folder / f"{choice}.yaml"
    if package is not None:
        return title
    if choice is None or not path.is_file():
        summaries = (f"  {name}: {_summary(folder / f'{name}.yaml')}" for name in names)
        return "\n".join([f"{group}=null", *summaries])
    return "\n".join([title, textwrap.indent(_option_body(path, group), "  ")])


def _option_body(path: Path, group: str) -> str:
    """Return the keys of a group's option after those of the options that it extends."""
    text = path.read_text(encoding="utf-8")
    config = yaml.safe_load(text) or {}
    bases = [path.with_name(f"{entry}.yaml") for entry in config.get("defaults", [])]
    bodies = [_option_body(base, group) for base in bases if base.is_file()]
    body = _body(text)
    if not text.startswith("# @package _global_"):
        body = _KEY.sub(f"{group.replace('/', '.')}.", body)
    return "\n".join([*bodies, body])


def _summary(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    return next((line for line in comments if not line.startswith("@package")), "")


def _body(text: str) -> str:
    """Return a file's text without its defaults list, its Hydra settings and its targets."""
    lines = text.splitlines()
    root = yaml.compose(text)
    keys = root.value if isinstance(root, yaml.MappingNode) else []
    for key, value in reversed(keys):
        if key.value in ("defaults", "hydra"):
            start, stop = key.start_mark.line, value.end_mark.line + (value.end_mark.column > 0)
            # YAML counts the comments before the next key as a part of the value.
            while stop > start + 1 and not lines[stop - 1].startswith((" ", "-")):
                stop -= 1
            del lines[start:stop]
    body = "\n".join(line for line in lines if not line.startswith("# @package")) + "\n"
    return re.sub(r"\n{3,}", "\n\n", _HIDDEN.sub("", body)).strip("\n")
