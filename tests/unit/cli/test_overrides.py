"""Paths and texts reach a command as they were typed, whatever characters they have."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from talkinghead.cli.hydra_app.overrides import to_hydra

AWKWARD = [
    "photo (1).jpg",
    "Hello, how are you?",
    "it's",
    'she said "no", twice',
    "'quoted'",
    "epoch=3.ckpt",
    "a=b=c",
    "${oc.env:HOME}",
    r"a\${x}",
    "$HOME and ${",
    "{a: 1}",
    "[1",
    r"C:\folder\ ".strip(),
    "\\",
    "Grüße 日本 😀",
    "two\nlines",
    "tab\there",
    " spaces around ",
    "true",
    "12",
    "1e-3",
    "#1: yes",
    "100 %(x)s %d",
    "choice(a,b)",
    "a,b",
    "-x --y",
    "~user",
]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "app.yaml").write_text(
        "face: null\ntext: null\nx: 1\ndata: {corpus_dir: null}\njobs: null\n"
    )
    return tmp_path


def _compose(conf: Path, *arguments: str):
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose("app", to_hydra(arguments))


@pytest.mark.parametrize("key", ["face", "text", "data.corpus_dir"])
@pytest.mark.parametrize("value", AWKWARD)
def test_value_is_literal(conf: Path, key: str, value: str) -> None:
    cfg = _compose(conf, f"{key}={value}")
    assert OmegaConf.select(cfg, key) == value
    # Hydra stores configurations as YAML; they must come back the same.
    assert OmegaConf.select(OmegaConf.create(OmegaConf.to_yaml(cfg)), key) == value


@pytest.mark.parametrize("value", AWKWARD)
def test_text_is_literal_in_a_sweep(value: str) -> None:
    # A sweeper writes the value out again for each of its jobs.
    multirun, argument = to_hydra(["-m", f"text={value}"])
    (override,) = OverridesParser.create().parse_overrides([argument])
    if value == "choice(a,b)":
        assert override.is_choice_sweep()
        return
    assert multirun == "-m"
    assert not override.is_sweep_override()
    again = OverridesParser.create().parse_overrides(
        [f"text={override.get_value_element_as_str()}"]
    )
    assert again[0].value() == override.value()


def test_other_keys_are_hydras(conf: Path) -> None:
    arguments = [
        "x=[1,2]",
        "model=compact",
        "+trainer.x={a:1}",
        "~x",
        "--cfg",
        "job",
        "hydra.verbose=true",
    ]
    assert to_hydra(arguments) == arguments


def test_null_empty_and_lists_stay_hydras(conf: Path) -> None:
    assert _compose(conf, "face=null").face is None
    assert _compose(conf, "face=").face == ""
    assert _compose(conf, "jobs=[{face:a,audio:b}]").jobs == [{"face": "a", "audio": "b"}]


def test_a_file_named_like_a_list_is_a_file(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(conf)
    Path("[me]").touch()
    assert _compose(conf, "face=[me]").face == "[me]"


def test_added_keys_are_literal_too(conf: Path) -> None:
    assert _compose(conf, "+corpus=a, b").corpus == "a, b"


def test_tilde_is_the_home_folder(conf: Path) -> None:
    assert _compose(conf, "face=~/a photo.jpg").face == str(Path.home() / "a photo.jpg")
    assert _compose(conf, "text=~/a").text == "~/a"


def test_multirun_is_found_anywhere_and_sweeps_paths(
    conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(conf)
    assert to_hydra(["face=a.jpg,b (2).jpg", "-m", "x=1,2"]) == [
        "-m",
        "face='a.jpg','b (2).jpg'",
        "x=1,2",
    ]
    Path("a.jpg,b.jpg").touch()
    assert to_hydra(["face=a.jpg,b.jpg", "--multirun"]) == ["-m", "face='a.jpg,b.jpg'"]
    assert to_hydra(["-m", "face=glob(*)"]) == ["-m", "face=glob(*)"]


def test_a_key_may_have_another_name() -> None:
    assert to_hydra(["data=my corpus, 1", "x=1"], "evaluate") == ["corpus='my corpus, 1'", "x=1"]
    assert to_hydra(["data=synthetic"], "train") == ["data=synthetic"]
