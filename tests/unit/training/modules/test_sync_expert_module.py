"""Losses and refusals of the sync expert's training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.tiny_training import EXPERT, SPEC

from talkinghead.errors import UsageError
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.training.modules.sync_expert_module import SyncExpertModule


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


@pytest.mark.parametrize(("loss", "num_frames"), [("info_nce", 5), ("bce", 8)])
def test_loss_falls_on_one_batch(loss: Any, num_frames: int) -> None:
    module = make_module(loss=loss, sync_expert={"num_frames": num_frames})
    batch = make_batch(num_frames=2 * num_frames)
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for _ in range(60):
        value, figures = module._loss(batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert figures["chance"] == pytest.approx(math.log(8 if loss == "info_nce" else 2))
    assert value < 0.5 * figures["chance"]
    assert loss == "bce" or figures["accuracy"] == 1


@pytest.mark.parametrize("loss", ["info_nce", "bce"])
def test_silent_windows_are_no_negatives(loss: Any) -> None:
    module, batch = make_module(loss=loss), make_batch()
    batch["mel"].fill_(MEL_SILENCE)
    value, figures = module._loss(batch)
    assert figures["silent"] == 1
    if loss == "info_nce":
        assert value == figures["chance"] == 0
    else:
        video, audio = module.sync_expert(*module._windows(batch))
        cosine = (video * audio).sum(1)
        expected = torch.nn.functional.softplus(-module.sync_expert.scale * (cosine - 0.5)).mean()
        torch.testing.assert_close(value, expected)


def test_an_unknown_loss_and_short_clips_are_refused() -> None:
    with pytest.raises(UsageError, match="loss=triplet: choose info_nce or bce"):
        make_module(loss="triplet")
    module = make_module(sync_expert={"num_frames": 16})
    with pytest.raises(UsageError, match=r"data\.num_frames=10 is shorter than a window"):
        module._loss(make_batch())
