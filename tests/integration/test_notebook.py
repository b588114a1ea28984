"""Tests that run the code cells of the notebooks in examples/, in order and in one namespace."""

from __future__ import annotations

import ast
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from helpers.predict_command import write_speech

from talkinghead import paths
from talkinghead.media.writer import write_image

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))


def _code_cells(notebook: Path) -> list[str]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    return ["".join(c["source"]) for c in content["cells"] if c["cell_type"] == "code"]


def _run(source: str, namespace: dict[str, object]) -> object:
    """Run a cell, and return the value of its last expression, as IPython shows it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), namespace)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    from skimage.data import astronaut

    # IPython is not a dependency; the notebook only shows a video with it.
    display = types.ModuleType("IPython.display")
    display.Video = lambda path, **options: Path(path).stat().st_size
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    write_image(tmp_path / "face.png", np.ascontiguousarray(astronaut()[:256, 100:356]))
    write_speech(tmp_path / "speech.wav", 1.0)
    monkeypatch.setattr(paths, "demo_face", lambda: tmp_path / "face.png")
    monkeypatch.setattr(paths, "DEMO_SPEECH", tmp_path / "speech.wav")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    shown = [_run(source, namespace) for source in _code_cells(notebook)]
    assert shown[1] == (25, 1.0)
    assert shown[2] > 1000
    assert shown[3] == 10


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
