"""Tests of the trainer for one or several processes, and of the checkpoint to resume from."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.paths import conf_dir
from talkinghead.training.distributed import other_processes
from talkinghead.training.resume import LAST, ResumeDirectory, resolve_resume
from talkinghead.training.training_run import build_trainer, resolve_precision

DDP = {"strategy": "ddp_find_unused_parameters_true", "accelerator": "cpu"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DDP, "there is one: give more"),
        ({"devices": 2}, "trainer.devices=2 makes 2 processes: choose trainer=ddp"),
        ({"devices": 0}, "trainer: "),
        ({"max_epochs": "x"}, "trainer.max_epochs=x: expected a whole number"),
        ({"strategy": "dpp", "devices": 2}, "trainer: .*dpp"),
        ({"precision": "12"}, "trainer: .*12"),
    ],
)
def test_inconsistent_trainer_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_trainer({"accelerator": "cpu", "devices": 1, **options}, [], [])


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "16-mixed"), ((8, 0), "bf16-mixed")])
def test_automatic_precision_is_not_emulated(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert resolve_precision("auto") == expected


@pytest.mark.parametrize("choice", [path.stem for path in (conf_dir() / "trainer").glob("*.yaml")])
def test_trainer_config_builds(choice: str) -> None:
    overrides = [f"trainer={choice}", "trainer.accelerator=cpu"]
    if choice != "default":
        overrides.append("trainer.devices=2")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", overrides)
    trainer = build_trainer(instantiate(cfg.trainer, _convert_="all"), [], [])
    processes = {"default": 1, "ddp": 2, "fsdp": 2, "multinode": 4}
    assert trainer.world_size == processes[choice]


def test_other_processes_use_the_saved_configuration_and_state_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["talkinghead", "-m", "seed=1,2"])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("MASTER_PORT", "1234")
    spec, config = sys.modules["__main__"].__spec__, HydraConfig.instance().cfg
    with other_processes(tmp_path / "a run", "train"):
        assert sys.argv[:4] == ["talkinghead", "train", "--config-path", f"{tmp_path}/a run/.hydra"]
        assert f"hydra.run.dir={tmp_path}/a run" in sys.argv
        main_spec = sys.modules["__main__"].__spec__
        assert main_spec is not None
        assert main_spec.name == "talkinghead.__main__"
        assert not HydraConfig.initialized()
        os.environ.update(LOCAL_RANK="0", MASTER_PORT="99")
    assert sys.argv == ["talkinghead", "-m", "seed=1,2"]
    assert (sys.modules["__main__"].__spec__, HydraConfig.instance().cfg) == (spec, config)
    assert "LOCAL_RANK" not in os.environ
    assert os.environ["MASTER_PORT"] == "1234"


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


def test_ckpt_path_last_continues_in_the_folder_of_the_newest_run(tmp_path: Path) -> None:
    assert run_dir(tmp_path, "last") == "now"
    make_runs(tmp_path)
    assert run_dir(tmp_path, "last") == "new"
    assert run_dir(tmp_path, None) == "now"
    assert run_dir(tmp_path, "old/checkpoints/last.ckpt") == "now"
    assert run_dir(tmp_path, "last", "hydra.run.dir=now") == "now"


def test_ckpt_path_last_does_not_use_another_run(tmp_path: Path) -> None:
    make_runs(tmp_path)
    assert resolve_resume(None, tmp_path) is None
    assert resolve_resume("last", tmp_path / "old") == str(tmp_path / "old" / LAST)
    with pytest.raises(CheckpointError, match=r"there is no .*other/checkpoints/last\.ckpt"):
        resolve_resume("last", tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"gone\.ckpt does not exist"):
        resolve_resume("gone.ckpt", tmp_path)
