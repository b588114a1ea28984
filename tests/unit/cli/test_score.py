"""Commands `score` and `evaluate`, from the command line to the files."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from talkinghead.cli.main import main
from talkinghead.data.synthetic_clips import write_synthetic_clip
from talkinghead.predict.compositing.renderers import FeatherRenderer, LaplacianRenderer


@pytest.fixture(autouse=True)
def _remove_log_handlers() -> Iterator[None]:
    """Remove Hydra's handlers, which write to the captured output of this test."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)


def test_score_of_named_systems_prints_the_page(tmp_path, capsys):
    media, output = tmp_path / "my media, 1", tmp_path / "out (1)"
    write_synthetic_clip(media / "real.mp4", 1.0)
    write_synthetic_clip(media / "other.mp4", 1.0, seed=1)
    systems = f"generated={{ours: '{media}/other.mp4', theirs: '{media}/real.mp4'}}"
    options = ["lpips=false", "num_strips=1", "detector=litert"]
    assert (
        main(["score", systems, f"reference={media}/real.mp4", f"output={output}", *options]) == 0
    )
    report = json.loads((output / "scores.json").read_text())
    assert list(report["systems"]) == ["reference", "ours", "theirs"]
    assert report["systems"]["theirs"]["scores"]["psnr"]["mean"] == pytest.approx(100)
    assert report["systems"]["ours"]["scores"]["psnr"]["mean"] < 60
    assert "lse_d" in report["systems"]["ours"]["scores"]
    assert "<video" in (output / "report.html").read_text()
    assert f"{output}/report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["score", "reference=x"], 2, "score needs generated="),
        (["score", "generated=no such file.mp4", "reference=x"], 2, "file.mp4 does not exist"),
        (["score", "generated=x", "reference=y", "refrence=z"], 2, "did you mean reference?"),
        (["evaluate", "data=no corpus", "checkpoint=none.ckpt"], 1, "no corpus is not a prepared"),
        (["evaluate", "corpus=x", "input=y"], 2, "give corpus= (a prepared corpus) or input="),
    ],
)
def test_errors_are_reported_in_one_line(arguments, status, expected, capsys):
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_evaluate_takes_the_compositing_of_predict(monkeypatch, tmp_path):
    calls = []
    (tmp_path / "manifest.json").write_text("{}")
    monkeypatch.setattr("talkinghead.cli.evaluate.evaluate", lambda *values: calls.append(values))
    for arguments in ([], ["renderer=feather", "renderer.feather=0.2", "stabilise=false"]):
        assert main(["evaluate", f"corpus={tmp_path}", "lip_prior=none", *arguments]) == 0
    (*_, options, _, renderer), (*_, changed, _, feather) = calls
    assert (repr(renderer), options.stabilise) == (repr(LaplacianRenderer()), True)
    assert (repr(feather), changed.stabilise) == (repr(FeatherRenderer(feather=0.2)), False)
