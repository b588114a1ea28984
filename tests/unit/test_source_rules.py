"""Tests of the conventions for modules, files and functions."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/talkinghead"
MODULES = sorted(SOURCE.rglob("*.py"))
FILES = [*MODULES, *(path for d in ("scripts", "tests") for path in (ROOT / d).rglob("*.py"))]
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_TOP_LEVEL_MODULES = 400, 50, 10


@pytest.mark.parametrize("module", ["talkinghead", "talkinghead.cli.main"])
def test_import_is_fast_and_light(module: str) -> None:
    heavy = {"torch", "numpy", "cv2", "av", "hydra", "omegaconf", "lightning", "wandb"}
    code = (
        f"import sys, time; start = time.perf_counter(); import {module}\n"
        f"assert not {heavy!r} & set(sys.modules)\n"
        "print(time.perf_counter() - start)"
    )
    times_s = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(5)
    ]
    assert statistics.median(times_s) < 0.3


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    long = {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > MAX_FILE_LINES}
    assert not long


def test_functions_are_short() -> None:
    long = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                num_lines = (node.end_lineno or 0) - node.lineno + 1
                if num_lines > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {num_lines}")
    assert not long


def test_module_file_names_are_unique() -> None:
    """Command modules have the names of their commands, which other modules may have too."""
    names = Counter(
        path.name
        for path in MODULES
        if path.parent != SOURCE / "cli" and not path.name.startswith("__")
    )
    assert not [name for name, count in names.items() if count > 1]


def test_packages_have_few_modules() -> None:
    """The command line is an exception: it has a module for each command."""
    counts = Counter(path.parent.relative_to(SOURCE).as_posix() for path in MODULES)
    counts.pop("cli")
    # An __init__.py is not counted.
    crowded = {name: n - 1 for name, n in counts.items() if n - 1 > MAX_TOP_LEVEL_MODULES}
    assert not crowded


def test_command_modules_are_short() -> None:
    long = [
        path.name
        for path in (SOURCE / "cli").glob("*.py")
        if path.name != "main.py" and len(path.read_text().splitlines()) > 40
    ]
    assert not long


def _imports(path: Path, modules: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & modules


def test_imports_have_no_cycles() -> None:
    names = {
        path: ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in MODULES
        if path.name != "__init__.py"
    }
    graph = {name: _imports(path, set(names.values())) for path, name in names.items()}
    while graph:
        leaves = {name for name, imported in graph.items() if not imported & graph.keys()}
        imported_by_others = set().union(*graph.values())
        assert leaves, f"import cycle among {sorted(graph.keys() & imported_by_others)}"
        graph = {name: imported for name, imported in graph.items() if name not in leaves}
