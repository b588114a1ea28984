"""Bring the YAML files in conf/ into line with the Python signatures that own the settings.

    python scripts/generate_config.py            rewrite the files
    python scripts/generate_config.py --check    fail where one would change

Two kinds of YAML mappings are bound to Python: one with `_target_`, and the keys below a comment
such as `# [talkinghead.predict.options.PredictOptions]`, up to the next blank line. Where key and
parameter differ in name, the comment names the parameter too. A bound key has the description of
its parameter as a comment, and its default as a value. A value that differs on purpose says so
behind it: `num_frames: 4  # instead of 5: the reason`. Values of parameters without a default,
`${...}`, `???`, and comments of parameters without a description are kept. A file that extends
another one in its defaults list holds only what differs and is not generated.

The keys whose values are paths or free text are written to `cli/hydra_app/literal_keys.py`.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader
from python_signatures import (
    NO_DEFAULT,
    UNKNOWN,
    Parameter,
    is_dataclass,
    is_definition,
    passes_on_keywords,
    read_parameters,
    resolve,
)

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
LITERAL_KEYS = ROOT / "src/talkinghead/cli/hydra_app/literal_keys.py"
WIDTH = 118

VARIANT_FILES = {
    "detector/face_alignment.yaml": "selects the other detector",
    "llm/openai_compatible.yaml": "connects to a local server",
    "provenance/none.yaml": "leaves the comment out",
    "tts/espeak.yaml": "runs the program espeak-ng",
    "tts/flite.yaml": "runs the program flite",
}
"""Files whose values and comments are written by hand, each with the reason."""
HYDRA_PATHS = {"hydra.run.dir", "hydra.sweep.dir", "run_dir"}
"""Keys of Hydra, or of Hydra's values, that are paths."""
OMITTED = {
    "talkinghead.data.datamodule.LipSyncDataModule": "the module gives the rest of its windows",
}
"""Targets whose YAML lists only some of the parameters, each with the reason."""

_DIRECTIVE = re.compile(r"\s*# \[(?P<target>[\w.]+)\]\s*")
_VARIANT = re.compile(r"  # instead of (?P<default>.+?): (?P<reason>.+)$")


@dataclass(frozen=True)
class BoundKey:
    """A YAML key with the Python parameter that owns it.

    Attributes:
        key: its dotted name on the command line.
        parameter: the owner.
        node: its YAML key and value.
    """

    key: str
    parameter: Parameter
    node: tuple[yaml.Node, yaml.Node]


@dataclass(frozen=True)
class Edit:
    """Replacement of the lines `start` to `stop` (exclusive)."""

    start: int
    stop: int
    lines: list[str]


def main() -> None:
    """Rewrite or check every file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if one would")
    check = parser.parse_args().check
    outdated = [path for path, text in generate().items() if path.read_text() != text]
    if check and outdated:
        names = ", ".join(str(path.relative_to(ROOT)) for path in outdated)
        sys.exit(f"run scripts/generate_config.py, these differ from the Python source: {names}")
    for path, text in generate().items():
        path.write_text(text, encoding="utf-8")


def generate() -> dict[Path, str]:
    """Return the content that each generated file should have."""
    texts, bound = {}, []
    for path in sorted(CONF.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        generated, keys = update(text, _prefix(path, text))
        bound += keys
        if path.relative_to(CONF).as_posix() not in VARIANT_FILES:
            texts[path] = generated
    texts[LITERAL_KEYS] = _literal_keys(bound)
    return texts


def update(text: str, prefix: str) -> tuple[str, list[BoundKey]]:
    """Return a file's text with comments and values from Python, and its bound keys.

    Args:
        text: the YAML file.
        prefix: what its keys have before their names on the command line, with a dot at the end.
    """
    lines = text.splitlines()
    root = yaml.compose(text)
    extends = re.search(r"^  - (?!_self_|override)[\w/]+$", text, re.MULTILINE) is not None
    bound: list[BoundKey] = []
    edits: list[Edit] = []
    if isinstance(root, yaml.MappingNode):
        for mapping, name in _mappings(root, prefix):
            known = {key.key for key in bound}
            keys = [key for key in _bind(mapping, name, lines) if key.key not in known]
            bound += keys
            if not extends:
                edits += [_update_key(key, lines) for key in keys]
                edits += _missing_keys(mapping, lines)
    for edit in sorted(edits, key=lambda item: (item.start, item.stop), reverse=True):
        lines[edit.start : edit.stop] = edit.lines
    return "\n".join(lines) + "\n", bound


def _prefix(path: Path, text: str) -> str:
    group = path.relative_to(CONF).parent.as_posix()
    if group == "." or text.startswith("# @package _global_"):
        return ""
    return f"{group.replace('/', '.')}."


def _mappings(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[yaml.MappingNode, str]]:
    """Yield a mapping and those in it, each with the dotted prefix of its keys."""
    yield node, prefix
    for key, value in node.value:
        if isinstance(value, yaml.MappingNode) and key.value != "hydra":
            yield from _mappings(value, f"{prefix}{key.value}.")


def _target(mapping: yaml.MappingNode) -> str | None:
    values = {key.value: value.value for key, value in mapping.value}
    target = values.get("_target_")
    return target if isinstance(target, str) and target.startswith("talkinghead.") else None


def _section(line: int, lines: list[str]) -> str | None:
    """Return the target that a comment above a key names, None without one."""
    indent = len(lines[line]) - len(lines[line].lstrip())
    is_next_key = True
    while line and lines[line - 1].strip():
        line -= 1
        depth = len(lines[line]) - len(lines[line].lstrip())
        if depth < indent:
            return None
        if depth > indent:
            continue
        match = _DIRECTIVE.fullmatch(lines[line])
        if match is not None:  # One that names a parameter is for the next key only.
            target = match["target"]
            return target if is_next_key or is_definition(target) else None
        is_next_key = is_next_key and lines[line].lstrip().startswith("#")
    return None


def _bind(mapping: yaml.MappingNode, prefix: str, lines: list[str]) -> list[BoundKey]:
    target = _target(mapping)
    bound: list[BoundKey] = []
    if mapping.flow_style and target is None:
        return bound
    for key, value in mapping.value:
        owner = target or _section(key.start_mark.line, lines)
        if owner is None or key.value.startswith("_") or key.value == "defaults":
            continue
        parameter = _parameter(owner, key.value)
        if parameter is None:
            continue
        bound.append(BoundKey(f"{prefix}{key.value}", parameter, (key, value)))
        bound += _bind_nested(value, parameter, f"{prefix}{key.value}.")
    return bound


def _parameter(owner: str, key: str) -> Parameter | None:
    """Return the owner of a key: a parameter of that name, or the one that the comment names."""
    if not is_definition(owner):
        owner, _, key = owner.rpartition(".")
    parameter = read_parameters(owner).get(key)
    if parameter is None and not passes_on_keywords(owner):
        raise LookupError(f"{owner} has no parameter {key}")
    return parameter


def _bind_nested(value: yaml.Node, parameter: Parameter, prefix: str) -> list[BoundKey]:
    """Return the bound keys of a mapping whose parameter is an option dataclass."""
    if not isinstance(value, yaml.MappingNode) or _target(value):
        return []
    owner = resolve(parameter.annotation.partition(" |")[0], parameter.module)
    if owner is None or not is_dataclass(owner):
        return []
    fields = read_parameters(owner)
    bound = []
    for key, inner in value.value:
        if key.value not in fields:
            raise LookupError(f"{owner} has no field {key.value}")
        bound.append(BoundKey(f"{prefix}{key.value}", fields[key.value], (key, inner)))
        bound += _bind_nested(inner, fields[key.value], f"{prefix}{key.value}.")
    return bound


def _update_key(bound: BoundKey, lines: list[str]) -> Edit:
    """Return the edit of a key's lines to its description and its value."""
    key, value = bound.node
    line, indent = key.start_mark.line, " " * key.start_mark.column
    if lines[line][: key.start_mark.column].strip():  # in braces, with others on the line
        _require_equal(bound, value)
        return Edit(line, line, [])
    start = line
    while start and lines[start - 1].startswith(f"{indent}#"):
        if _DIRECTIVE.fullmatch(lines[start - 1]):
            break
        start -= 1
    description = bound.parameter.description
    comment = _comment(description, indent) if description else lines[start:line]
    if isinstance(value, yaml.MappingNode) and not value.flow_style:
        return Edit(start, line, comment)
    stop = max(line + 1, _stop(value, lines))
    return Edit(start, stop, [*comment, *_value_lines(bound, lines[line:stop], indent)])


def _value_lines(bound: BoundKey, old: list[str], indent: str) -> list[str]:
    _, value = bound.node
    default, written = bound.parameter.default, _load(value)
    variant = _VARIANT.search(old[-1])
    if variant:
        if default is not UNKNOWN and _load(yaml.compose(variant["default"])) != default:
            raise ValueError(f"{bound.key}: the default is {default!r}, not {variant['default']}")
        if written == default:
            raise ValueError(f"{bound.key} is marked as a variant and has the default {default!r}")
        return old
    wired = isinstance(written, str) and ("${" in written or written == "???")
    if default in (NO_DEFAULT, UNKNOWN) or wired or written == default:
        return old
    return [f"{indent}{bound.node[0].value}: {_dump(default)}"]


def _require_equal(bound: BoundKey, value: yaml.Node) -> None:
    default = bound.parameter.default
    if default not in (NO_DEFAULT, UNKNOWN) and _load(value) != default:
        raise ValueError(f"{bound.key}: write it on a line of its own: it differs from {default!r}")


def _missing_keys(mapping: yaml.MappingNode, lines: list[str]) -> list[Edit]:
    """Return edits that add missing parameters below the last bound key of a mapping."""
    owners: dict[str, list[yaml.Node]] = {}
    target = _target(mapping)
    if mapping.flow_style:
        return []
    for key, value in mapping.value:
        owner = target or _section(key.start_mark.line, lines)
        if owner is not None:
            owners.setdefault(owner, []).append(value)
    present = {key.value for key, _ in mapping.value}
    present |= set(re.findall(r"^  - (\w+): ", "\n".join(lines), re.MULTILINE))  # config groups
    edits = []
    for owner, values in owners.items():
        if owner in OMITTED or not (target or (is_definition(owner) and is_dataclass(owner))):
            continue
        column = mapping.value[0][0].start_mark.column
        stop = max(_stop(value, lines) for value in values)
        for parameter in read_parameters(owner).values():
            if parameter.name in present or not parameter.is_plain or not parameter.description:
                continue
            default = parameter.default
            value = "???" if default in (NO_DEFAULT, UNKNOWN) else _dump(default)
            added = [*_comment(parameter.description, " " * column)]
            added.append(f"{' ' * column}{parameter.name}: {value}")
            edits.append(Edit(stop, stop, added))
    return edits[::-1]


def _stop(value: yaml.Node, lines: list[str]) -> int:
    """Return the line after a value. YAML itself counts comments after a block as part of it."""
    stop = value.end_mark.line + (value.end_mark.column > 0)
    while stop and (not lines[stop - 1].strip() or lines[stop - 1].lstrip().startswith("#")):
        stop -= 1
    return stop


def _comment(description: str, indent: str) -> list[str]:
    first = description.split()[0]
    text = description[0].upper() + description[1:] if first.isalpha() else description
    text = text if text[-1] in ".:!?" else f"{text}."
    text = text.replace("`", "").replace("None", "null")
    prefix = f"{indent}# "
    return textwrap.wrap(
        text, WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False
    )


def _load(node: yaml.Node | None) -> Any:
    loader = get_yaml_loader()("")
    value = loader.construct_document(_resolve_scalars(node, loader))
    return _as_tuples(value)


def _resolve_scalars(node: Any, loader: Any) -> Any:
    """Tag scalars as OmegaConf does: YAML itself reads 1e-4 as text."""
    if isinstance(node, yaml.ScalarNode):
        plain = node.style is None
        node.tag = loader.resolve(yaml.ScalarNode, node.value, (plain, not plain))
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _resolve_scalars(item, loader)
    elif isinstance(node, yaml.MappingNode):
        for _, item in node.value:
            _resolve_scalars(item, loader)
    return node


def _as_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_as_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _as_tuples(item) for key, item in value.items()}
    return value


def _dump(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _literal_keys(bound: list[BoundKey]) -> str:
    paths = {key.key for key in bound if key.parameter.is_path} | HYDRA_PATHS
    named = {key.key for key in bound if key.key in paths and "Mapping" in key.parameter.types}
    texts = {key.key for key in bound if key.parameter.is_text} - paths
    text = '"""Keys whose values are paths or free text. Made by scripts/generate_config.py."""\n'
    for name, keys, doc in (
        ("PATH_KEYS", paths, "Their types admit a path."),
        ("NAMED_PATHS_KEYS", named, "Paths, or named ones in braces: `{a: PATH, b: PATH}`."),
        ("TEXT_KEYS", texts, "Their types are text, and not one of a fixed set of words."),
    ):
        lines = textwrap.wrap(" ".join(sorted(keys)), 96, break_on_hyphens=False)
        words = "".join(f"    {line}\n" for line in lines)
        text += f'\n{name} = frozenset(\n    """\n{words}    """.split()\n)\n"""{doc}"""\n'
    return text


if __name__ == "__main__":
    main()
