"""Update the YAML files in conf/ with the descriptions and defaults of the Python parameters.

    python scripts/generate_config.py            rewrite the files
    python scripts/generate_config.py --check    fail if a file would change

A mapping with `_target_` is bound to that function or class. A mapping whose parameter is an option
dataclass is bound to the dataclass. Other keys are bound by a comment such as
`# [talkinghead.types.EncodeOptions]`, which applies up to the next blank line; a comment that also
names a parameter binds only the next key. A bound key gets the description of the parameter as a
comment and the default of the parameter as the value. A value that differs intentionally is marked
by a comment: `num_frames: 4  # instead of 5: the reason`. Values of parameters without a default,
`${...}` and `???` are kept. Files that extend other files in their defaults list are not changed.

The rules of the values of each file are written to `cli/hydra_app/value_rules.json`.
"""

from __future__ import annotations

import argparse
import inspect
import json
import pydoc
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from griffe import Docstring
from omegaconf import OmegaConf

from talkinghead.value_rules import ValueRule, evaluate_annotation, rules_of

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
VALUE_RULES = ROOT / "src/talkinghead/cli/hydra_app/value_rules.json"
WIDTH = 118

HAND_WRITTEN = {"llm/openai_compatible.yaml", "tts/flite.yaml"}
"""Files that are not generated: their comments describe one server or program, not the class."""
INCOMPLETE = {
    "talkinghead.data.datamodule.LipSyncDataModule",
    "talkinghead.live.server.server_settings.ServerSettings",
}
"""Targets with parameters that are not in the YAML file, because the command sets them."""

NO_DEFAULT = inspect.Parameter.empty
_DIRECTIVE = re.compile(r"\s*# \[([\w.]+)\]\s*")
_VARIANT = re.compile(r"  # instead of (.+?): .+$")


def main() -> None:
    """Write or check every file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if outdated")
    check = parser.parse_args().check
    outdated = {path: text for path, text in generate().items() if path.read_text() != text}
    if check and outdated:
        names = ", ".join(str(path.relative_to(ROOT)) for path in outdated)
        sys.exit(f"run scripts/generate_config.py, these differ from the Python source: {names}")
    for path, text in outdated.items():
        path.write_text(text, encoding="utf-8")


def generate() -> dict[Path, str]:
    """Return the expected content of each generated file."""
    texts, rules = {}, {}
    for path in sorted(CONF.rglob("*.yaml")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(CONF)
        is_global = len(name.parts) == 1 or text.startswith("# @package _global_")
        prefix = "" if is_global else f"{'.'.join(name.parent.parts)}."
        generated, parameters = update(text, prefix)
        rules[name.as_posix()] = {
            key.removeprefix(prefix): [rule.to_dict() for rule in parameter.rules]
            for key, parameter in parameters
            if parameter.rules
        }
        if name.as_posix() not in HAND_WRITTEN:
            texts[path] = generated
    texts[VALUE_RULES] = _value_rules(rules)
    return texts


def update(text: str, prefix: str) -> tuple[str, list[tuple[str, Parameter]]]:
    """Return the text of a file with updated comments and values, and the parameters of its keys.

    Args:
        text: Text of the YAML file.
        prefix: Prefix of the keys on the command line, with a dot at the end.
    """
    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):
        return text, []
    file, values = _File(text.splitlines()), OmegaConf.to_container(OmegaConf.create(text))
    file.read(root, values, prefix, None)
    extended = [e for e in values.get("defaults", ()) if isinstance(e, str) and e != "_self_"]
    if not extended:
        # Apply the edits from the end of the file, so that earlier line numbers stay valid.
        for start, stop, lines in sorted(file.edits, key=lambda edit: edit[:2])[::-1]:
            file.lines[start:stop] = lines
    return "\n".join(file.lines) + "\n", file.bound


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function, or a field of a dataclass.

    `annotation` is the evaluated type, `default` the default as a YAML value (lists, not tuples) or
    `NO_DEFAULT`, and `description` the entry in the docstring, empty if the entry is "see ...".
    """

    name: str
    annotation: Any
    default: Any
    description: str

    @property
    def types(self) -> set[Any]:
        """The types that the annotation allows, without type arguments."""
        annotation = _plain(self.annotation)
        is_union = get_origin(annotation) in (Union, UnionType)
        members = get_args(annotation) if is_union else (annotation,)
        return {get_origin(member) or member for member in map(_plain, members)}

    @property
    def rules(self) -> tuple[ValueRule, ...]:
        """The rules of the values; none if the type is not described by rules."""
        if self.options is not None:
            return ()
        return rules_of(self.annotation)

    @property
    def options(self) -> type | None:
        """The option dataclass that the parameter takes, or None."""
        return next((kind for kind in self.types if is_dataclass(kind)), None)


def _plain(annotation: Any) -> Any:
    """Return a type without its range."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


@cache
def read_parameters(owner: Callable[..., Any]) -> tuple[dict[str, Parameter], bool]:
    """Return the parameters of a function or class by name, and whether others are accepted.

    `**options` are replaced by the parameters of X if the docstring describes them as "fields of
    `X`" or "arguments of `X`" and X is a class of this project.
    """
    found: dict[str, Parameter] = {}
    others: dict[str, Parameter] = {}
    accepts_others = False
    descriptions = _descriptions(owner)
    for name, parameter in inspect.signature(owner).parameters.items():
        description = descriptions.get(name, "")
        if parameter.kind is parameter.VAR_KEYWORD:
            match = re.match(r"(?i)(other )?(fields|arguments) of `(\w+)`", description)
            target = vars(sys.modules[owner.__module__]).get(match[3]) if match else None
            accepts_others = not getattr(target, "__module__", "").startswith("talkinghead.")
            if not accepts_others:
                others, accepts_others = read_parameters(target)
        else:
            default = _default(owner, parameter)
            annotation = evaluate_annotation(owner, name, parameter.annotation)
            found[name] = Parameter(name, annotation, default, description)
    return {**others, **found}, accepts_others


def _default(owner: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    value = parameter.default
    if is_dataclass(owner):
        field = next(field for field in fields(owner) if field.name == parameter.name)
        value = field.default_factory() if callable(field.default_factory) else value
    return _as_yaml(value)


def _as_yaml(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_yaml(item) for key, item in value.items()}
    return [_as_yaml(item) for item in value] if isinstance(value, tuple | list) else value


def _descriptions(owner: Callable[..., Any]) -> dict[str, str]:
    """Return the `Args:` and `Attributes:` entries of a function, or of a class and its bases."""
    documented = [owner]
    if isinstance(owner, type):
        documented = [item for c in reversed(owner.__mro__) for item in (c, c.__init__)]
    found = {}
    for doc in (inspect.cleandoc(item.__doc__ or "") for item in documented):
        for section in Docstring(doc).parse("google", warnings=False):
            if section.kind.value in ("parameters", "attributes"):
                for item in section.value:
                    found[item.name.lstrip("*")] = " ".join(item.description.split())
    return {name: "" if d.lower().startswith("see ") else d for name, d in found.items()}


@dataclass
class _File:
    """A YAML file, the parameters of its keys, and the necessary edits (start, stop, lines)."""

    lines: list[str]
    bound: list[tuple[str, Parameter]] = field(default_factory=list)
    edits: list[tuple[int, int, list[str]]] = field(default_factory=list)

    def read(self, node: yaml.MappingNode, values: Any, prefix: str, owner: Any) -> None:
        """Bind the keys of a mapping and of nested mappings to parameters."""
        if "_target_" in values:
            target = values["_target_"]
            owner = _find(target)[0] if target.startswith("talkinghead.") else None
        section, ends = None, {owner: 0}
        for key, value in node.value:
            name, start, end = key.value, key.start_mark.line, self._end(value)
            while start and self.lines[start - 1].startswith(f"{' ' * key.start_mark.column}#"):
                start -= 1
            if start and not self.lines[start - 1].strip():
                section = None
            own, parameter_name = section or owner, name
            for number in range(start, key.start_mark.line):
                if directive := _DIRECTIVE.fullmatch(self.lines[number]):
                    start, (own, parameter_name) = number + 1, _find(directive[1])
                    section = section if parameter_name else own
            if name in ("defaults", "hydra") or name.startswith("_"):
                continue
            given = values[name]
            block = isinstance(value, yaml.MappingNode) and not value.flow_style
            parameter = _parameter(own, parameter_name or name)
            if parameter is not None:
                if own in (section, owner):
                    ends[own] = end
                self.bound.append((f"{prefix}{name}", parameter))
                self._edit(key, (start, end), parameter.default if block else given, parameter)
            if block:
                options = parameter.options if parameter else None
                self.read(value, given, f"{prefix}{name}.", options)
        defaults = values.get("defaults", ())
        groups = {key for entry in defaults if isinstance(entry, dict) for key in entry}
        for own, end in ends.items():
            if own is owner or is_dataclass(own):
                self._add_missing(own, values.keys() | groups, end, node.start_mark.column)

    def _end(self, value: yaml.Node) -> int:
        """Return the line after a value; comments that follow the value do not belong to it."""
        end = max(value.end_mark.line + (value.end_mark.column > 0), value.start_mark.line + 1)
        while not self.lines[end - 1].strip() or self.lines[end - 1].lstrip().startswith("#"):
            end -= 1
        return end

    def _edit(self, key: yaml.Node, span: tuple[int, int], given: Any, owner: Parameter) -> None:
        """Add an edit that sets the comment and the value of a key."""
        line, indent, default = key.start_mark.line, " " * key.start_mark.column, owner.default
        comment = _comment(owner.description, indent) or self.lines[span[0] : line]
        is_wired = isinstance(given, str) and ("${" in given or given == "???")
        if variant := _VARIANT.search(self.lines[line]):
            expected = OmegaConf.to_container(OmegaConf.create(f"x: {variant[1]}"))["x"]
            if expected != default or given == default:
                raise ValueError(f"{key.value}: {given!r} {variant[0]}: the default is {default!r}")
        if variant or is_wired or default in (NO_DEFAULT, given):
            self.edits.append((span[0], line, comment))
        else:
            self.edits.append((*span, [*comment, f"{indent}{key.value}: {_dump(default)}"]))

    def _add_missing(self, owner: Any, present: set[str], end: int, column: int) -> None:
        """Add edits that insert the parameters of an owner that are not in the file."""
        if owner is None or f"{owner.__module__}.{owner.__qualname__}" in INCOMPLETE:
            return
        indent = " " * column
        for name, parameter in read_parameters(owner)[0].items():
            if name not in present and (comment := _comment(parameter.description, indent)):
                value = "???" if parameter.default is NO_DEFAULT else _dump(parameter.default)
                self.edits.append((end, end, [*comment, f"{indent}{name}: {value}"]))


def _find(target: str) -> tuple[Any, str]:
    """Return the function or class in a dotted name, and the parameter in the name, if any."""
    found: Any = pydoc.locate(target)
    if callable(found):
        return found, ""
    owner, _, name = target.rpartition(".")
    found = pydoc.locate(owner)
    if not callable(found):
        raise LookupError(f"there is no {target}")
    return found, name


def _parameter(owner: Any, name: str) -> Parameter | None:
    if owner is None:
        return None
    parameters, accepts_others = read_parameters(owner)
    if name not in parameters and not accepts_others:
        raise LookupError(f"{owner.__qualname__} has no parameter {name}")
    return parameters.get(name)


def _comment(description: str, indent: str) -> list[str]:
    if not description:
        return []
    first = description.split()[0]
    text = description[0].upper() + description[1:] if first.isalpha() else description
    text = text if text[-1] in ".:!?" else f"{text}."
    text = text.replace("`", "").replace("None", "null")
    prefix = f"{indent}# "
    return textwrap.wrap(
        text, WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False
    )


def _dump(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _value_rules(rules: Mapping[str, Mapping[str, Any]]) -> str:
    """Return JSON with one key per line, so that differences are readable."""
    files = []
    for name, keys in rules.items():
        if keys:
            lines = [f"  {json.dumps(key)}: {json.dumps(keys[key])}" for key in sorted(keys)]
            files.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(files) + "\n}\n"


if __name__ == "__main__":
    main()
