"""Choice of the checkpoint and the folder of a resumed run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from talkinghead.errors import CheckpointError
from talkinghead.training.resume import LAST, ResumeDirectory, resolve_resume


def make_runs(folder: Path) -> None:
    for age_s, name in enumerate(("new", "old")):
        path = folder / name / LAST
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1_000 - age_s, 1_000 - age_s))


def run_dir(folder: Path, ckpt_path: str | None, *overrides: str) -> str:
    config = OmegaConf.create(
        {
            "ckpt_path": ckpt_path,
            "hydra": {"run": {"dir": f"{folder}/now"}, "overrides": {"hydra": list(overrides)}},
        }
    )
    OmegaConf.set_readonly(config, True)
    ResumeDirectory().on_run_start(config)
    return Path(config.hydra.run.dir).name


def test_last_continues_in_the_folder_of_the_newest_run(tmp_path: Path) -> None:
    assert run_dir(tmp_path, "last") == "now"
    make_runs(tmp_path)
    assert run_dir(tmp_path, "last") == "new"
    assert run_dir(tmp_path, None) == "now"
    assert run_dir(tmp_path, "old/checkpoints/last.ckpt") == "now"
    assert run_dir(tmp_path, "last", "hydra.run.dir=now") == "now"


def test_last_is_never_the_checkpoint_of_another_run(tmp_path: Path) -> None:
    make_runs(tmp_path)
    assert resolve_resume(None, tmp_path) is None
    assert resolve_resume("last", tmp_path / "old") == str(tmp_path / "old" / LAST)
    with pytest.raises(CheckpointError, match=r"there is no .*other/checkpoints/last\.ckpt"):
        resolve_resume("last", tmp_path / "other")


def test_a_path_must_exist(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.ckpt does not exist"):
        resolve_resume("gone.ckpt", tmp_path)
