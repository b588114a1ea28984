"""Rules for the values of options, from the type annotations of dataclasses and functions.

The command line checks the values of a configuration with these rules before it imports a command
(`scripts/generate_config.py` writes the rules of all keys to a file); `check_fields` checks the
options of the Python API.
"""

from __future__ import annotations

import builtins
import difflib
import inspect
import math
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from talkinghead.errors import UsageError

_MAX_SHOWN_CHARS = 60
T = TypeVar("T")
_NAMES = {
    "null": "null",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "path": "a path",
}


@dataclass(frozen=True)
class Range:
    """Allowed range of a number, for annotations such as `Annotated[int, Range(0, 51)]`.

    Attributes:
        minimum: Smallest allowed number; None for no limit.
        maximum: Largest allowed number; None for no limit.
        above: Number below all allowed numbers; None for no limit.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None

    def contains(self, number: float) -> bool:
        """Return whether a number is in the range."""
        return (
            (self.minimum is None or number >= self.minimum)
            and (self.maximum is None or number <= self.maximum)
            and (self.above is None or number > self.above)
        )

    def __str__(self) -> str:
        words = [] if self.above is None else [f"above {self.above:.10g}"]
        if self.minimum is not None and self.maximum is not None:
            return f"from {self.minimum:.10g} to {self.maximum:.10g}"
        words += [] if self.minimum is None else [f"at least {self.minimum:.10g}"]
        words += [] if self.maximum is None else [f"at most {self.maximum:.10g}"]
        return " and ".join(words)


PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(0)]
UnitFloat = Annotated[float, Range(0, 1)]
"""A fraction, a weight or a probability."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""A seed that all random number generators accept."""


@dataclass(frozen=True)
class ValueRule:
    """One kind of value that an option accepts; an option may have several rules.

    Attributes:
        kind: "null", "bool", "int", "float", "str", "path", "choice", "list" or "mapping".
        choices: Allowed values of a choice.
        limits: Range of a number.
        items: Rules of the items of a list or of the values of a mapping; None for any.
        length: Number of items of a list; None for any number.
    """

    kind: str
    choices: tuple[Any, ...] = ()
    limits: Range | None = None
    items: tuple[ValueRule, ...] | None = None
    length: int | None = None

    def accepts(self, value: Any) -> bool:
        """Return whether a value follows this rule."""
        if self.kind == "choice":
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if self.kind in ("list", "mapping"):
            return self._accepts_items(value)
        if self.kind in ("int", "float"):
            return _is_number(value, self.kind) and (not self.limits or self.limits.contains(value))
        accepted: dict[str, tuple[type, ...]] = {
            "null": (types.NoneType,),
            "bool": (bool,),
            "str": (str,),
            "path": (str, Path),
        }
        return isinstance(value, accepted[self.kind])

    def _accepts_items(self, value: Any) -> bool:
        if self.kind == "mapping":
            members = list(value.values()) if isinstance(value, Mapping) else None
        else:
            is_text = isinstance(value, str | bytes | Mapping) or not hasattr(value, "__getitem__")
            members = None if is_text else list(value)
        if members is None or self.length not in (None, len(members)):
            return False
        return self.items is None or all(accepts(self.items, member) for member in members)

    def __str__(self) -> str:
        if self.kind == "choice":
            *others, last = (str(choice).lower() for choice in self.choices)
            return f"{', '.join(others)} or {last}" if others else last
        if self.kind in ("list", "mapping"):
            number = "" if self.length is None else f" {self.length}"
            items = "" if self.items is None else f" of{number} ({describe(self.items)})"
            return f"a {self.kind}{items}"
        return f"{_NAMES[self.kind]} {self.limits}" if self.limits else _NAMES[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON values."""
        values: dict[str, Any] = {"kind": self.kind}
        if self.choices:
            values["choices"] = list(self.choices)
        if self.limits is not None:
            values["limits"] = {k: v for k, v in vars(self.limits).items() if v is not None}
        if self.items is not None:
            values["items"] = [rule.to_dict() for rule in self.items]
        return values if self.length is None else values | {"length": self.length}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ValueRule:
        """Return the rule that `to_dict` converted to these values."""
        items = values.get("items")
        return cls(
            values["kind"],
            tuple(values.get("choices", ())),
            Range(**values["limits"]) if "limits" in values else None,
            None if items is None else tuple(map(cls.from_dict, items)),
            values.get("length"),
        )


def accepts(rules: Sequence[ValueRule], value: Any) -> bool:
    """Return whether a value follows at least one rule; without rules, every value does."""
    return not rules or any(rule.accepts(value) for rule in rules)


def describe(rules: Sequence[ValueRule]) -> str:
    """Return what the rules expect, for messages."""
    return ", or ".join(dict.fromkeys(map(str, rules)))


def explain_value(name: str, value: Any, rules: Sequence[ValueRule]) -> str:
    """Return one line about a value that follows none of the rules, with a similar choice."""
    shown = "null" if value is None else str(value).lower() if value in (True, False) else value
    text = str(shown) if isinstance(shown, str) or shown is not value else repr(shown)
    if len(text) > _MAX_SHOWN_CHARS:
        text = f"{text[:_MAX_SHOWN_CHARS]}..."
    known = [str(choice) for rule in rules for choice in rule.choices]
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{name}={' '.join(text.split())}: expected {describe(rules)}{hint}"


def rules_of(annotation: Any) -> tuple[ValueRule, ...]:
    """Return the rules of a type annotation; none if it has a type that no rule describes."""
    limits: Range | None = None
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        limits = next((item for item in metadata if isinstance(item, Range)), None)
    if get_origin(annotation) in (Union, types.UnionType):
        members = [rules_of(member) for member in get_args(annotation)]
        found = [rule for member in members for rule in member] if all(members) else []
        if any(rule.kind == "path" for rule in found):  # A path may also be a text.
            found = [rule for rule in found if rule.kind != "str"]
        return tuple(
            replace(rule, limits=limits) if limits and rule.kind in ("int", "float") else rule
            for rule in found
        )
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
        null = (ValueRule("null"),) if None in values else ()
        return (ValueRule("choice", tuple(v for v in values if v is not None)), *null)
    return _container_rules(annotation) or _scalar_rules(annotation, limits)


def _scalar_rules(annotation: Any, limits: Range | None) -> tuple[ValueRule, ...]:
    kinds = {bool: "bool", int: "int", float: "float", str: "str", Path: "path"}
    if annotation in (None, types.NoneType):
        return (ValueRule("null"),)
    try:
        kind = kinds.get(annotation)
    except TypeError:  # An annotation that cannot be hashed.
        return ()
    return () if kind is None else (ValueRule(kind, limits=limits),)


def _container_rules(annotation: Any) -> tuple[ValueRule, ...]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if not isinstance(origin, type):
        return ()
    if issubclass(origin, tuple) and arguments and arguments[-1] is not Ellipsis:
        return (ValueRule("list", items=rules_of(arguments[0]), length=len(arguments)),)
    if issubclass(origin, Mapping):
        return (ValueRule("mapping", items=rules_of(arguments[-1]) or None),)
    if issubclass(origin, Sequence):
        return (ValueRule("list", items=rules_of(arguments[0]) or None),)
    return ()


def evaluate_annotation(owner: Callable[..., Any], name: str, annotation: Any) -> Any:
    """Return a parameter's type annotation, evaluated in the module that defines the parameter.

    Names that are imported only for type checking are replaced by `object`.
    """
    if not isinstance(annotation, str):
        return annotation
    bases = inspect.getmro(owner) if isinstance(owner, type) else ()
    origin = next((c for c in bases if name in vars(c).get("__annotations__", {})), owner)
    names = vars(builtins) | vars(sys.modules[origin.__module__])
    return eval(annotation, {}, defaultdict(lambda: object, names))  # noqa: S307 - our own source


def given_or_default(value: T | None, kind: type[T], name: str) -> T:
    """Return options that a caller has given, or the default ones for None.

    Raises:
        UsageError: The value is of another type.
    """
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise UsageError(
            f"{name} is of the type {type(value).__name__}: expected {kind.__name__}(...)"
        )
    return value


_field_rules: dict[type[Any], dict[str, tuple[ValueRule, ...]]] = {}


def check_fields(options: Any, prefix: str = "") -> None:
    """Check the values of an option dataclass; call this in its `__post_init__`.

    Args:
        options: An instance of a dataclass.
        prefix: Prefix of the names in the message, such as "style.".

    Raises:
        UsageError: A value has another type than its annotation, or is out of range.
    """
    kind = type(options)
    if kind not in _field_rules:
        _field_rules[kind] = {
            field.name: rules_of(evaluate_annotation(kind, field.name, field.type))
            for field in fields(kind)
        }
    for name, rules in _field_rules[kind].items():
        value = getattr(options, name)
        if not accepts(rules, value):
            raise UsageError(explain_value(f"{prefix}{name}", value, rules))


def _is_number(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or not hasattr(value, "__float__") or isinstance(value, str):
        return False
    if kind == "int":
        return hasattr(value, "__index__")
    return math.isfinite(value)
