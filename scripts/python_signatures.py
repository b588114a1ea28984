"""Read parameters, defaults and their documentation from Python source without importing it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "src"
NO_DEFAULT = object()
"""The parameter must be given."""
UNKNOWN = object()
"""The default is an expression that only running the code would evaluate."""

_PLAIN_TYPES = {
    *("str", "int", "float", "bool", "None", "Path", "Any", "list", "dict", "tuple", "Sequence"),
    *("Mapping", "Literal", "StrPath", "PathLike"),
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function, or a field of a dataclass.

    Attributes:
        name: its name.
        annotation: its type as written, such as `str | Path | None`.
        default: its value, `NO_DEFAULT` or `UNKNOWN`.
        description: its line in `Args:` or `Attributes:`, joined; empty where there is none.
        module: the module that defines it.
    """

    name: str
    annotation: str
    default: Any
    description: str
    module: str

    @property
    def types(self) -> set[str]:
        """The members of the annotated union, without their type arguments."""
        without_arguments = re.sub(r"\[[^\[\]]*\]", "", self.annotation)
        while "[" in without_arguments:
            without_arguments = re.sub(r"\[[^\[\]]*\]", "", without_arguments)
        return {part.strip() for part in without_arguments.split("|")} - {""}

    @property
    def is_plain(self) -> bool:
        """Whether YAML can hold every value of the type."""
        return self.types <= _PLAIN_TYPES

    @property
    def is_path(self) -> bool:
        """Whether a value may be a path."""
        return bool(re.search(r"\b(Path|StrPath|PathLike)\b", self.annotation))

    @property
    def is_text(self) -> bool:
        """Whether a value is free text: a string that is not one of a fixed set."""
        return "str" in self.types and self.types <= {"str", "None"}


@cache
def read_parameters(target: str) -> dict[str, Parameter]:
    """Return the parameters of a function, class or dataclass by name.

    Args:
        target: its dotted name, such as `talkinghead.types.AVSpec`.

    Raises:
        LookupError: the source has no such definition.
    """
    module, _, name = target.rpartition(".")
    node, module = _find(module, name)
    if isinstance(node, ast.FunctionDef):
        return _function_parameters(node, module, ast.get_docstring(node) or "")
    constructor = _method(node, "__init__")
    if constructor is not None:
        doc = f"{ast.get_docstring(node) or ''}\n{ast.get_docstring(constructor) or ''}"
        own = _function_parameters(constructor, module, doc)
        if constructor.args.kwarg is None:
            return own
        passed_on = _passed_on(constructor, module)
        return {**(passed_on or _inherited(node, module)), **own}
    return {**_inherited(node, module), **_fields(node, module)}


@cache
def is_dataclass(target: str) -> bool:
    """Return whether a dotted name is that of a dataclass."""
    module, _, name = target.rpartition(".")
    node, _ = _find(module, name)
    return any("dataclass" in ast.unparse(item) for item in node.decorator_list)


@cache
def is_definition(target: str) -> bool:
    """Return whether a dotted name is that of a function, a method or a class."""
    module, _, name = target.rpartition(".")
    try:
        _find(module, name)
    except LookupError:
        return False
    return True


@cache
def passes_on_keywords(target: str) -> bool:
    """Return whether a function or a class takes `**options` for one that cannot be found."""
    module, _, name = target.rpartition(".")
    node, module = _find(module, name)
    function = _method(node, "__init__") if isinstance(node, ast.ClassDef) else node
    if function is None or function.args.kwarg is None:
        return False
    inherited = _inherited(node, module) if isinstance(node, ast.ClassDef) else {}
    return not (_passed_on(function, module) or inherited)


def resolve(name: str, module: str) -> str | None:
    """Return the dotted name of a class that a module defines or imports, None if neither."""
    for item in _tree(module).body:
        if isinstance(item, ast.ClassDef | ast.FunctionDef) and item.name == name:
            return f"{module}.{name}"
    for item in ast.walk(_tree(module)):
        if isinstance(item, ast.ImportFrom) and (item.module or "").startswith("talkinghead"):
            for alias in item.names:
                if (alias.asname or alias.name) == name:
                    return f"{item.module}.{alias.name}"
    return None


@cache
def _tree(module: str) -> ast.Module:
    path = SOURCE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.is_file():
        raise LookupError(f"there is no module {module}")
    return ast.parse(path.read_text(encoding="utf-8"))


def _find(module: str, name: str) -> tuple[ast.ClassDef | ast.FunctionDef, str]:
    """Return the definition of a class, a function or a class's method, and its module."""
    owner, _, class_name = module.rpartition(".")
    if class_name[:1].isupper():
        definition, owner = _find(owner, class_name)
        method = _method(definition, name) if isinstance(definition, ast.ClassDef) else None
        if method is None:
            raise LookupError(f"{module} has no method {name}")
        return method, owner
    for item in _tree(module).body:
        if isinstance(item, ast.ClassDef | ast.FunctionDef) and item.name == name:
            return item, module
    imported = resolve(name, module)
    if imported is None:
        raise LookupError(f"{module} has no class or function {name}")
    owner, _, original = imported.rpartition(".")
    return _find(owner, original)


def _method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    return next((item for item in methods if item.name == name), None)


def _inherited(node: ast.ClassDef, module: str) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for base in node.bases:
        target = resolve(ast.unparse(base), module)
        if target is not None:
            found |= read_parameters(target)
    return found


def _passed_on(function: ast.FunctionDef, module: str) -> dict[str, Parameter]:
    """Return the fields of the option dataclass that is built from `**options`, if any."""
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and any(keyword.arg is None for keyword in call.keywords):
            target = resolve(ast.unparse(call.func), module)
            if target is not None and is_definition(target) and is_dataclass(target):
                return read_parameters(target)
    return {}


def _function_parameters(node: ast.FunctionDef, module: str, doc: str) -> dict[str, Parameter]:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = [
        *zip(positional, [*missing, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    descriptions = _descriptions(doc)
    return {
        argument.arg: Parameter(
            argument.arg,
            _annotation(argument.annotation, module),
            _evaluate(default, module),
            descriptions.get(argument.arg, ""),
            module,
        )
        for argument, default in pairs
        if argument.arg not in ("self", "cls")
    }


def _fields(node: ast.ClassDef, module: str) -> dict[str, Parameter]:
    descriptions = _descriptions(ast.get_docstring(node) or "")
    found = {}
    for item, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        annotation = _annotation(item.annotation, module)
        if annotation.startswith("ClassVar"):
            continue
        below = following.value if isinstance(following, ast.Expr) else None
        text = below.value if isinstance(below, ast.Constant) else ""
        name = item.target.id
        description = descriptions.get(name) or " ".join(str(text).split())
        default = _evaluate(item.value, module)
        found[name] = Parameter(name, annotation, default, description, module)
    return found


def _annotation(node: ast.expr | None, module: str) -> str:
    """Return the type as written, with a type alias replaced by its value."""
    if node is None:
        return ""
    if isinstance(node, ast.Name):
        for item in _tree(module).body:
            if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == node.id:
                return ast.unparse(item.value)
        imported = resolve(node.id, module)
        if imported is not None and not is_definition(imported):
            owner, _, name = imported.rpartition(".")
            return _annotation(ast.Name(name), owner)
    return ast.unparse(node)


def _evaluate(node: ast.expr | None, module: str) -> Any:
    if node is None:
        return NO_DEFAULT
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "field":
        keywords = {item.arg: item.value for item in node.keywords}
        if "default" in keywords:
            return _evaluate(keywords["default"], module)
        factory = ast.unparse(keywords["default_factory"]) if keywords else ""
        return {"dict": {}, "list": []}.get(factory, UNKNOWN)
    if isinstance(node, ast.Name):
        return _constant(node.id, module)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return UNKNOWN


def _constant(name: str, module: str) -> Any:
    for item in _tree(module).body:
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == name:
            return _evaluate(item.value, module)
        if isinstance(item, ast.AnnAssign) and ast.unparse(item.target) == name:
            return _evaluate(item.value, module)
    imported = resolve(name, module)
    if imported is None:
        return UNKNOWN
    owner, _, original = imported.rpartition(".")
    return _constant(original, owner)


def _descriptions(doc: str) -> dict[str, str]:
    """Return the entries of the `Args:` and `Attributes:` sections of a docstring."""
    found: dict[str, str] = {}
    section, name, indent = False, "", 0
    for line in doc.splitlines():
        depth = len(line) - len(line.lstrip())
        if re.fullmatch(r"\s*(Args|Attributes):", line):
            section, name, indent = True, "", depth
        elif section and line.strip() and depth <= indent:
            section = False
        elif section:
            entry = re.match(r"\s+\*{0,2}(\w+)(?: \([^)]*\))?:\s*(.*)", line)
            if entry and depth <= indent + 4:
                name = entry[1]
                found[name] = entry[2]
            elif name and line.strip():
                found[name] = f"{found[name]} {line.strip()}".strip()
    return {name: text for name, text in found.items() if not text.lower().startswith("see ")}
