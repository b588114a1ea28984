"""Tests of the progress bars."""

from __future__ import annotations

import ast
import logging
import multiprocessing
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from talkinghead import progress_bar as progress_bars
from talkinghead.progress_bar import progress_bar


@pytest.fixture
def terminal(monkeypatch):
    """Return the file of a terminal in place of stderr."""
    console = Console(file=StringIO(), force_terminal=True, color_system=None, width=100)
    monkeypatch.setattr(progress_bars, "stderr_console", lambda: console)
    return console.file


@pytest.fixture
def logger():
    logger = logging.getLogger("test_progress_bar")
    logger.setLevel(logging.INFO)
    return logger


def _run(logger):
    with progress_bar("reading a.mp4", logger) as show:
        show(0, 10)
        show(5, 10)


def test_bar_shows_the_percentage_and_the_time_left(terminal, logger):
    _run(logger)
    assert re.search(r"reading a\.mp4 .* 50% (-:--:--|0:00:0\d)", terminal.getvalue())


def test_bars_can_be_nested(terminal, logger):
    with progress_bar("jobs", logger):
        _run(logger)
    assert "reading a.mp4" in terminal.getvalue()
    assert "jobs" in terminal.getvalue()


def test_bar_is_hidden_where_messages_are(terminal, logger):
    logger.setLevel(logging.WARNING)
    _run(logger)
    assert terminal.getvalue() == ""


def test_bar_is_hidden_in_worker_processes(terminal, logger, monkeypatch):
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    _run(logger)
    assert terminal.getvalue() == ""


def test_bar_is_hidden_without_a_terminal(monkeypatch, logger, capsys):
    monkeypatch.setattr(progress_bars, "stderr_console", lambda: Console(stderr=True))
    _run(logger)
    assert capsys.readouterr().err == ""


def test_all_bars_are_on_stderr():
    package, without = Path(progress_bars.__file__).parent, []
    for path in package.rglob("*.py"):
        if "rich.progress" not in (text := path.read_text(encoding="utf-8")):
            continue
        tree = ast.parse(text)
        imported = {
            name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "rich.progress"
            for name in node.names
        } & {"track", "Progress"}
        without += [
            f"{path.name}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in imported
            and "console" not in {keyword.arg for keyword in node.keywords}
        ]
    assert not without
