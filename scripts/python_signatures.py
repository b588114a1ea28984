"""Parameters of functions and classes, with their types, defaults and descriptions."""

from __future__ import annotations

import builtins
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from griffe import Docstring

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
        is_union = get_origin(self.annotation) in (Union, UnionType)
        members = get_args(self.annotation) if is_union else (self.annotation,)
        return {get_origin(member) or member for member in members}

    @property
    def is_text(self) -> bool:
        """Whether values are free text: strings that are not one of a fixed set."""
        return str in self.types and self.types <= {str, NoneType}

    @property
    def options(self) -> type | None:
        """The option dataclass that the parameter takes, or None."""
        return next((kind for kind in self.types if is_dataclass(kind)), None)


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
            annotation = _annotation(owner, name, parameter.annotation)
            found[name] = Parameter(name, annotation, default, description)
    return {**others, **found}, accepts_others


def _annotation(owner: Callable[..., Any], name: str, annotation: Any) -> Any:
    """Return a type annotation, evaluated in the module of the class that defines the field.

    Names that are imported only for type checking are replaced by `object`.
    """
    if not isinstance(annotation, str):
        return annotation
    bases = inspect.getmro(owner) if isinstance(owner, type) and is_dataclass(owner) else ()
    origin = next((c for c in bases if name in vars(c).get("__annotations__", {})), owner)
    names = vars(builtins) | vars(sys.modules[origin.__module__])
    return eval(annotation, {}, defaultdict(lambda: object, names))  # noqa: S307 - our own source


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
