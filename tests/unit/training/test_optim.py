"""Learning-rate schedule, gradient clipping and weight averaging."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from talkinghead.errors import TalkingHeadError
from talkinghead.training.optim import (
    MovingAverage,
    OptimizerConfig,
    clip_gradients,
    require_finite,
    require_finite_weights,
)


def test_learning_rate_warms_up_and_decays() -> None:
    config = OptimizerConfig(lr=1.0, warmup_iterations=10, decay_iterations=110, final_lr=0.1)
    assert config.lr_at(0) == pytest.approx(0.1)
    assert config.lr_at(9) == pytest.approx(1.0)
    assert config.lr_at(60) == pytest.approx(0.55)
    assert config.lr_at(110) == config.lr_at(500) == pytest.approx(0.1)
    rates = [config.lr_at(i) for i in range(10, 111)]
    assert rates == sorted(rates, reverse=True)


def test_without_decay_the_rate_is_constant() -> None:
    assert OptimizerConfig(lr=2.0, warmup_iterations=0).lr_at(10**6) == 2.0


def test_apply_sets_the_rate_of_every_group() -> None:
    config = OptimizerConfig(lr=1.0, warmup_iterations=4)
    optimizer = config.build(nn.Linear(2, 2).parameters())
    assert config.apply(optimizer, 1) == 0.5
    assert [g["lr"] for g in optimizer.param_groups] == [0.5]


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


def test_a_non_finite_loss_names_its_clips() -> None:
    batch = {"clip": ["anna/1", "ben/take 2"], "start": torch.tensor([0, 31])}
    require_finite(torch.tensor(1.0), "loss", 0, batch)
    named = (
        "loss is nan in iteration 7, with the clips anna/1 from frame 0, ben/take 2 from frame 31:"
    )
    with pytest.raises(TalkingHeadError, match=named):
        require_finite(torch.tensor(float("nan")), "loss", 7, batch)


def test_non_finite_weights_are_named() -> None:
    network = nn.Linear(2, 2)
    require_finite_weights(network, 3)
    with torch.no_grad():
        network.bias[1] = float("nan")
    with pytest.raises(TalkingHeadError, match=r"not finite after iteration 3 \(bias\)"):
        require_finite_weights(network, 3)
