"""Parameters of functions and classes, with their types, defaults and descriptions."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from griffe import Docstring

from talkinghead.value_rules import ValueRule, evaluate_annotation, rules_of

NO_DEFAULT = inspect.Parameter.empty


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
    def is_text(self) -> bool:
        """Whether values are texts: any text, or one of a fixed set of words."""
        rules = [rule for rule in self.rules if rule.kind != "null"]
        return bool(rules) and all(
            rule.kind == "str" or all(isinstance(choice, str) for choice in rule.choices or (0,))
            for rule in rules
        )

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


def admits_path(annotation: Any) -> bool:
    """Return whether a value of a type may be a path or contain a path."""
    return annotation is Path or any(admits_path(item) for item in get_args(annotation))


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
