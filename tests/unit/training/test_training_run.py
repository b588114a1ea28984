"""The trainer for one or several processes."""

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
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from talkinghead.errors import UsageError
from talkinghead.paths import conf_dir
from talkinghead.training.parallel.distributed import gather, other_processes
from talkinghead.training.parallel.fsdp import ShardedStrategy
from talkinghead.training.training_run import build_trainer, resolve_precision

DDP = {"strategy": "ddp_find_unused_parameters_true", "accelerator": "cpu"}


def build(**options: Any) -> Any:
    return build_trainer({"accelerator": "cpu", "devices": 1, **options}, [], [])


def test_strategies_determine_the_number_of_processes() -> None:
    assert isinstance(build().strategy, SingleDeviceStrategy)
    trainer = build(**DDP, devices=2)
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._ddp_kwargs["find_unused_parameters"]
    assert trainer.world_size == 2
    assert build(**DDP, devices=2, num_nodes=3).world_size == 6
    assert build(strategy=ShardedStrategy(), devices=2).world_size == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DDP, "there is one: give more"),
        ({"devices": 2}, "trainer.devices=2 makes 2 processes: choose trainer=ddp"),
        ({"devices": 0}, "trainer: "),
        ({"strategy": "dpp", "devices": 2}, "trainer: .*dpp"),
        ({"precision": "12"}, "trainer: .*12"),
    ],
)
def test_inconsistent_trainer_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**options)


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_automatic_precision_is_float32_on_a_cpu() -> None:
    assert resolve_precision("auto") == "32-true"
    assert resolve_precision("bf16-mixed") == "bf16-mixed"


def test_gather_with_one_process_returns_the_rows() -> None:
    rows = torch.randn(3, 2)
    assert gather(rows) is rows


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
