"""Tests of the public names and of the conventions for modules, files and functions."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import talkinghead

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/talkinghead"
MODULES = sorted(SOURCE.rglob("*.py"))
FILES = [*MODULES, *(path for d in ("scripts", "tests") for path in (ROOT / d).rglob("*.py"))]
MAX_FILE_LINES, MAX_COMMAND_LINES, MAX_FUNCTION_LINES, MAX_MODULES = 400, 40, 50, 10


def test_public_names_are_importable_and_listed():
    assert set(talkinghead.__all__) <= set(dir(talkinghead))
    for name in talkinghead.__all__:
        assert getattr(talkinghead, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        talkinghead.Nothing  # noqa: B018 - the access is the test


@pytest.mark.parametrize("module", ["talkinghead", "talkinghead.cli.main"])
def test_import_is_fast_and_light(module):
    heavy = {"torch", "numpy", "cv2", "av", "hydra", "omegaconf", "lightning", "wandb"}
    code = (
        f"import sys, time; start = time.process_time(); import {module}\n"
        f"assert not {heavy!r} & set(sys.modules)\n"
        "print(time.process_time() - start)"
    )
    times_s = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(5)
    ]
    assert statistics.median(times_s) < 0.3


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements in a node, without a visit of their expressions, which are many."""
    for block in ("body", "handlers", "orelse", "finalbody", "cases"):
        for statement in getattr(node, block, ()):
            yield statement
            yield from _statements(statement)


def test_files_and_functions_are_short():
    long = {}
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        long[name] = len(path.read_text(encoding="utf-8").splitlines()) - MAX_FILE_LINES
        if path.parent == SOURCE / "cli" and path.name != "main.py":
            long[name] += MAX_FILE_LINES - MAX_COMMAND_LINES
        for node in _statements(_parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                num_lines = (node.end_lineno or 0) - node.lineno + 1
                long[f"{name}:{node.name}"] = num_lines - MAX_FUNCTION_LINES
    assert not {name: excess for name, excess in long.items() if excess > 0}


def test_module_file_names_are_unique():
    """Command modules have the names of their commands, which other modules may have too."""
    names = Counter(
        path.name
        for path in MODULES
        if path.parent != SOURCE / "cli" and not path.name.startswith("__")
    )
    assert not [name for name, count in names.items() if count > 1]


def test_packages_have_few_modules():
    """The command line is an exception: it has a module for each command."""
    counts = Counter(path.parent.relative_to(SOURCE).as_posix() for path in MODULES)
    counts.pop("cli")
    # An __init__.py is not counted.
    crowded = {name: n - 1 for name, n in counts.items() if n - 1 > MAX_MODULES}
    assert not crowded


def _imports(path: Path, modules: set[str]) -> set[str]:
    found = set()
    for node in _statements(_parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & modules


def test_imports_have_no_cycles():
    names = {
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts): path
        for path in MODULES
        if path.name != "__init__.py"
    }
    TopologicalSorter({name: _imports(names[name], set(names)) for name in names}).prepare()
