"""Tests of training the sync expert, and of learning rate, gradient clipping and averaging."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.tiny_training import EXPERT, SPEC
from torch import nn

from talkinghead.errors import UsageError
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.training.modules.sync_expert_module import SyncExpertModule
from talkinghead.training.optim import MovingAverage, OptimizerConfig, clip_gradients


def make_module(**options: Any) -> SyncExpertModule:
    torch.manual_seed(0)
    expert = {**EXPERT, **options.pop("sync_expert", {})}
    optimizer = {"lr": 3e-3, "warmup_iterations": 2}
    return SyncExpertModule(SPEC, expert, optimizer, **{"max_iterations": 2, **options})


def make_batch(num_clips: int = 4, num_frames: int = 10) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mouths = torch.rand(num_clips, num_frames, 3, 48, 48, generator=generator)
    return {
        "mouths": mouths,
        "mean_mouth": mouths.mean(1),
        "mel": torch.randn(num_clips, num_frames, 80, 16, generator=generator),
    }


def test_bce_falls_on_one_batch() -> None:
    module, batch = make_module(loss="bce"), make_batch()
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for _ in range(60):
        value, figures = module._loss(batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert figures["chance"] == pytest.approx(math.log(2))
    assert value < 0.5 * figures["chance"]


@pytest.mark.parametrize("loss", ["info_nce", "bce"])
def test_silent_windows_are_not_negatives(loss: Any) -> None:
    module, batch = make_module(loss=loss), make_batch()
    batch["mel"].fill_(MEL_SILENCE)
    value, figures = module._loss(batch)
    assert figures["silent"] == 1
    expected = torch.zeros(())
    if loss == "bce":
        video, audio = module.sync_expert(*module._windows(batch))
        logits = module.sync_expert.scale * ((video * audio).sum(1) - 0.5)
        expected = torch.nn.functional.softplus(-logits).mean()
    torch.testing.assert_close(value, expected)


def test_unknown_loss_and_short_clips_are_refused() -> None:
    with pytest.raises(UsageError, match="loss=triplet: choose info_nce or bce"):
        make_module(loss="triplet")
    module = make_module(sync_expert={"num_frames": 16})
    with pytest.raises(UsageError, match=r"data\.num_frames=10 is shorter than a window"):
        module._loss(make_batch())


def test_learning_rate_warms_up_and_decays() -> None:
    config = OptimizerConfig(lr=1.0, warmup_iterations=10, decay_iterations=110, final_lr=0.1)
    rates = [config.lr_at(iteration) for iteration in (0, 9, 60, 110, 500)]
    assert rates == pytest.approx([0.1, 1.0, 0.55, 0.1, 0.1])
    optimizer = config.build(nn.Linear(2, 2).parameters())
    assert config.apply(optimizer, 4) == optimizer.param_groups[0]["lr"] == 0.5
    assert OptimizerConfig(lr=2.0).lr_at(10**6) == 2.0


def test_clipping_returns_the_norm_before_clipping() -> None:
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 4.0, 0.0]])
    optimizer = torch.optim.SGD(layer.parameters(), lr=1)
    assert clip_gradients(optimizer, 0.0) == pytest.approx(5.0)
    assert layer.weight.grad.norm() == pytest.approx(5.0)
    assert clip_gradients(optimizer, 1.0) == pytest.approx(5.0)
    assert layer.weight.grad.norm() == pytest.approx(1.0, abs=1e-4)


def test_moving_average_follows_and_stays_in_evaluation_mode() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    average = MovingAverage("generator", network, decay=0.9)
    network.weight.data.fill_(1.0)
    average.train()
    average.update(network, iteration=0)
    assert average.network.weight.item() == pytest.approx(0.9)
    for iteration in range(1000, 1003):
        network.weight.data.fill_(2.0)
        average.update(network, iteration)
    assert average.network.weight.item() == pytest.approx(2 - 1.1 * 0.9**3)
    assert not average.network.training
    assert list(average.state_dict()) == ["generator.weight"]
