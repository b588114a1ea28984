"""Tests of literal paths and texts on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from talkinghead.cli.hydra_app.overrides import check_outputs, to_hydra
from talkinghead.cli.main import main
from talkinghead.errors import UsageError


@pytest.fixture
def conf(tmp_path) -> Path:
    (tmp_path / "app.yaml").write_text(
        "face: null\ntext: null\nx: 1\ndata: {corpus_dir: null}\njobs: null\ngenerated: null\n"
    )
    return tmp_path


def _compose(conf: Path, *arguments: str):
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose("app", to_hydra(arguments))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("""it's "a, b" \\ (1).jpg""", id="quotes and commas"),
        pytest.param("a=${oc.env:HOME} $x \\${y}", id="interpolation"),
        pytest.param("{a: 1", id="open brace"),
        pytest.param("two\nlines\tand a tab ", id="white space"),
        pytest.param("true", id="looks like a boolean"),
        pytest.param("Grüße 日本 😀", id="unicode"),
    ],
)
def test_path_and_text_values_are_literal(conf, value):
    cfg = _compose(conf, f"face={value}", f"text={value}", f"data.corpus_dir={value}")
    # Hydra stores configurations as YAML, which must keep the values.
    for stored in (cfg, OmegaConf.create(OmegaConf.to_yaml(cfg))):
        assert [stored.face, stored.text, stored.data.corpus_dir] == [value] * 3


def test_null_lists_and_empty_values_are_not_quoted(conf):
    cfg = _compose(conf, "face=null", "text=", "jobs=[{face:a,audio:b}]", "generated={a: x, b: y}")
    assert (cfg.face, cfg.text) == (None, "")
    assert cfg.jobs == [{"face": "a", "audio": "b"}]
    assert cfg.generated == {"a": "x", "b": "y"}
    assert _compose(conf, "face={a: x}").face == "{a: x}"


def test_existing_file_with_brackets_is_taken_as_path(conf, monkeypatch):
    monkeypatch.chdir(conf)
    Path("[me]").touch()
    Path("{a: x}").touch()
    cfg = _compose(conf, "face=[me]", "generated={a: x}")
    assert (cfg.face, cfg.generated) == ("[me]", "{a: x}")


def test_tilde_is_expanded_in_paths_only(conf):
    cfg = _compose(conf, "face=~/a photo.jpg", "text=~/a")
    assert (cfg.face, cfg.text) == (str(Path.home() / "a photo.jpg"), "~/a")


def test_multirun_splits_paths_at_commas_and_texts_without_spaces(conf, monkeypatch):
    monkeypatch.chdir(conf)
    Path("c.jpg,d.jpg").touch()
    arguments = ["face=a.jpg,b (2).jpg", "audio=c.jpg,d.jpg", "output=glob(*)"]
    # Hydra does not find -m between two overrides.
    assert to_hydra([*arguments, "-m", "text=Yes, please", "stt.device=cpu,cuda"]) == [
        *("-m", "face='a.jpg','b (2).jpg'", "audio='c.jpg,d.jpg'", "output=glob(*)"),
        *("text='Yes, please'", "stt.device=cpu,cuda"),
    ]


def test_arguments_without_paths_or_texts_are_unchanged():
    arguments = ["x=[1,2]", "model=compact", "+trainer.x={a:1}", "~x", "--cfg", "job"]
    assert to_hydra(arguments) == arguments


def test_key_alias_is_replaced():
    assert to_hydra(["data=my corpus, 1"], "evaluate") == ["corpus='my corpus, 1'"]
    assert to_hydra(["data=synthetic"], "train") == ["data=synthetic"]


@pytest.mark.parametrize(
    ("group", "value", "choices"),
    [
        ("lip_prior", "null", "did you mean none? (auto, curve, distilled, none, whisper)"),
        ("tts", "null", "(coqui, espeak, flite, openai, piper)"),
        ("renderer", "5", "(feather, laplacian, poisson)"),
        ("detector", "true", "(face_alignment, litert)"),
        ("voice", "{a: 1}", "(default)"),
        ("provenance", "nan", "(c2pa, metadata, none)"),
        ("hydra/launcher", "null", "(basic,"),
    ],
)
def test_error_of_an_unknown_choice_names_the_choices(group, value, choices, capsys):
    assert main(["predict", f"{group}={value}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"talkinghead: {group}={value}: no such choice")
    assert choices in line


def test_choices_of_a_group_in_a_sweep_are_separate():
    assert to_hydra(["-m", "lip_prior=none,null"]) == ["-m", "lip_prior=none,'null'"]


def test_setting_that_is_removed_is_refused(capsys):
    assert main(["predict", "~tts", "face=f", "audio=a", "output=o.mp4"]) == 2
    assert "~tts: predict needs this setting" in capsys.readouterr().err


def test_home_folder_is_expanded_in_lists(conf, monkeypatch):
    monkeypatch.setenv("HOME", "/home/a, b")
    arguments = ("face=~/f.jpg", "generated={a: ~/x y, b: /z}", "exclude_face=[~/me.jpg,0]")
    assert to_hydra(arguments)[2] == r"exclude_face=['/home/a, b/me.jpg',0]"
    cfg = _compose(conf, *arguments[:2])
    assert cfg.face == "/home/a, b/f.jpg"
    assert cfg.generated == {"a": "/home/a, b/x y", "b": "/z"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "=5"], "'=5' is not key=value"),
        (["--version", "now"], "--version does not take 'now'"),
        (
            ["pseudo_label", "input=x", "output=y", "lip_prior=none"],
            "pseudo-labels need a lip prior",
        ),
    ],
)
def test_other_mistakes_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["output=a.mp4", "crf=20,21"],
        ["face=a.jpg,b.jpg", "output=a.mp4,b.mp4"],
        ["output=a.mp4,a.mp4", "crf=choice(1,2)"],
    ],
)
def test_runs_that_would_overwrite_an_output_are_refused(arguments):
    with pytest.raises(UsageError, match=r"\d runs would write \d output.*jobs="):
        check_outputs(to_hydra(["-m", *arguments], "predict"), "predict")


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "output=a.mp4"],
        ["-m", "output=a.mp4,b.mp4"],
        ["-m", "output=null", "crf=1,2"],
        ["-m", "output=corpus", "num_shards=3", "shard=range(3)"],
        ["-m", "optimizer=sgd,adam"],
        ["-m", "output=a.mp4", "face=glob(*)"],
        ["output=a,b.mp4"],
    ],
)
def test_runs_with_outputs_of_their_own_are_accepted(arguments):
    check_outputs(to_hydra(arguments, "predict"), "predict")
