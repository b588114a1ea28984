"""Commands `score` and `evaluate`, from the command line to the files."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from talkinghead.cli.hydra_app.overrides import to_hydra
from talkinghead.cli.main import main
from talkinghead.cli.score import scorer_arguments
from talkinghead.data.synthetic_clips import write_synthetic_clip
from talkinghead.evaluation.checkpoint_evaluation import EvaluationOptions
from talkinghead.evaluation.system_scores import ScoreOptions
from talkinghead.paths import conf_dir

QUICK = ["lpips=false", "num_strips=1", "detector=litert"]


@pytest.fixture(autouse=True)
def _remove_log_handlers() -> Iterator[None]:
    """Remove Hydra's handlers, which write to the captured output of this test."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("my media, 1")
    write_synthetic_clip(folder / "real.mp4", 1.0)
    write_synthetic_clip(folder / "other.mp4", 1.0, seed=1)
    return folder


def _values(*arguments: str, command: str = "score"):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, to_hydra(arguments))


def test_score_of_named_systems_prints_the_page(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out (1)"
    systems = f"generated={{ours: '{media}/other.mp4', theirs: '{media}/real.mp4'}}"
    arguments = [systems, f"reference={media}/real.mp4", f"output={output}", *QUICK]
    assert main(["score", *arguments]) == 0
    report = json.loads((output / "scores.json").read_text())
    assert list(report["systems"]) == ["reference", "ours", "theirs"]
    assert report["systems"]["theirs"]["scores"]["psnr"]["mean"] == pytest.approx(100)
    assert report["systems"]["ours"]["scores"]["psnr"]["mean"] < 60
    assert "lse_d" in report["systems"]["ours"]["scores"]
    assert "<video" in (output / "report.html").read_text()
    assert f"{output}/report.html" in capsys.readouterr().out


def test_paths_need_no_quotes() -> None:
    assert _values("generated=my media, 1/a.mp4").generated == "my media, 1/a.mp4"
    assert _values("generated=[a,b]").generated == ["a", "b"]
    assert _values("generated={a: x, b: y/z.mp4}").generated == {"a": "x", "b": "y/z.mp4"}
    assert _values("reference={a: x}").reference == "{a: x}"


def test_existing_file_with_braces_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("{a: x}").touch()
    assert _values("generated={a: x}").generated == "{a: x}"


@pytest.mark.parametrize(
    ("command", "options"), [("score", ScoreOptions()), ("evaluate", EvaluationOptions())]
)
def test_configuration_has_the_defaults_of_the_options(command: str, options) -> None:
    values = OmegaConf.to_container(_values(command=command))
    assert isinstance(values, dict)
    chosen = {key: values[key] for key in values if hasattr(options, key)}
    made = type(options)(**scorer_arguments(chosen))
    assert {**vars(made), "splits": ()} == {**vars(options), "splits": ()}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["reference=x"], "score needs generated="),
        (["generated=x"], "score needs reference="),
        (["generated=no such file.mp4", "reference=nor this"], "no such file.mp4 does not exist"),
        (["generated=x", "reference=y", "refrence=z"], "did you mean reference?"),
    ],
)
def test_usage_errors_are_one_line_and_exit_with_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_evaluate_accepts_data_for_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expert = "sync.checkpoint=null"
    assert main(["evaluate", f"data={tmp_path}/no corpus", expert, "checkpoint=none.ckpt"]) == 1
    assert "none.ckpt does not exist" in capsys.readouterr().err
    assert main(["evaluate", f"data={tmp_path}", f"corpus={tmp_path}", "nonsense=1"]) == 2
