"""Tests of the values that a command needs: they are checked before heavy modules are imported."""

import subprocess
import sys
import types

import pytest

from talkinghead.cli.main import COMMANDS, PLAIN_COMMANDS, main

NEEDED = {
    "predict": "face=FILE and audio=FILE and output=FILE must be given",
    "predict lip_prior=curve": "predict needs lip_prior.path=...",
    "predict face=a.png text= output=b.mp4": "text= is empty",
    "prepare": "prepare needs input=... and output=...",
    "pseudo_label": "pseudo_label needs input=... and output=...",
    "shard": "shard needs input=... and output=...",
    "shard input=nosuch output=shards": "nosuch is not a prepared corpus",
    "train": "train needs data.corpus_dir=...",
    "train data.corpus_dir=nosuch": "nosuch is not a prepared corpus",
    "evaluate": "give corpus= (a prepared corpus) or input=",
    "evaluate corpus=[nosuch]": "nosuch is not a prepared corpus",
    "score": "score needs generated=... and reference=...",
    "export": "export needs output=...",
    "personalise": "video=... and output=... must be given",
    "converse": "face=... and audio=... and output=... must be given",
    "converse interactive=true": "face=... and output=... must be given",
}


@pytest.mark.parametrize("arguments", NEEDED)
def test_missing_value_is_reported_without_the_command(arguments, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = arguments.split()[0]
    # Importing the module of the command would raise an ImportError.
    monkeypatch.setitem(sys.modules, f"talkinghead.cli.{command}", None)
    status = main(arguments.split())
    error = capsys.readouterr().err
    assert NEEDED[arguments] in error
    assert status == (1 if "is not a prepared" in error else 2)
    assert error.count("\n") == 1


@pytest.mark.parametrize("choice", ["experiment=smoke", "data=shards data.corpus_dir=s3://corpus"])
def test_corpus_that_the_run_makes_or_fetches_is_not_required(choice, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    seen = []
    command = types.ModuleType("talkinghead.cli.train")
    command.main = seen.append
    monkeypatch.setitem(sys.modules, "talkinghead.cli.train", command)
    assert main(["train", "run_dir=run", *choice.split()]) == 0
    assert len(seen) == 1


def test_every_command_is_covered():
    without_needs = {"serve", "demo", *PLAIN_COMMANDS}
    assert {arguments.split()[0] for arguments in NEEDED} == COMMANDS.keys() - without_needs


def test_usage_error_does_not_import_torch():
    code = "import sys; from talkinghead.cli.main import main; main(sys.argv[1:]); " + (
        "print({'torch', 'av', 'cv2', 'lightning'} & set(sys.modules))"
    )
    for arguments in (["score"], ["predict"], ["train", "data.corpus_dir=nosuch"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert done.stdout == "set()\n"


def test_group_of_another_command_is_not_suggested(capsys):
    assert main(["train", "lip_prior=curve"]) == 2
    assert "train has no key lip_prior (talkinghead" in capsys.readouterr().err
