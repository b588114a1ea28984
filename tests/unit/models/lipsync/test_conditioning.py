"""Conditioning on emotion and head pose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_training import GENERATOR, SPEC
from torch import Tensor

from talkinghead.errors import UsageError
from talkinghead.models.checkpoint import build, load_generator, save_release
from talkinghead.models.lipsync.conditioning import choose_emotion
from talkinghead.models.lipsync.generator import LipSyncGenerator

CONDITIONED = {**GENERATOR, "emotions": ["neutral", "happy"], "head_pose": True}
FRAMES = 3


def make(arguments: dict[str, Any]) -> LipSyncGenerator:
    torch.manual_seed(0)
    model = build("generator", arguments, SPEC).eval()
    assert isinstance(model, LipSyncGenerator)
    # The head starts at zero, which would hide the effect of the tokens.
    torch.manual_seed(1)
    torch.nn.init.normal_(model.decoder.head.weight, std=0.1)
    return model


def make_conditioned() -> LipSyncGenerator:
    """Return a generator with random conditioning weights."""
    model = make(CONDITIONED)
    assert model.emotion is not None
    assert model.pose is not None
    torch.nn.init.normal_(model.emotion.table.weight)
    torch.nn.init.normal_(model.pose.layers[-1].weight)
    return model


def inputs(model: LipSyncGenerator) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    windows = model.context_frames + FRAMES + model.lookahead_frames
    return (
        torch.rand(2, 3, SPEC.face_size, SPEC.face_size),
        100 + 60 * torch.rand(2, 20, 2),
        torch.rand(2, FRAMES, 3, SPEC.face_size // 2, SPEC.face_size // 2),
        torch.randn(2, windows, 80, 16),
    )


@torch.no_grad()
def mouths(model: LipSyncGenerator, *conditions: Tensor | None) -> Tensor:
    return model(*inputs(model), *conditions).mouth


def test_conditioning_is_off_by_default_and_starts_without_effect() -> None:
    plain, conditioned = make(GENERATOR), make(CONDITIONED)
    own, theirs = plain.state_dict(), conditioned.state_dict()
    assert {name.split(".")[0] for name in theirs.keys() - own.keys()} == {"emotion", "pose"}
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    conditions = torch.tensor([1, 0]), torch.full((2, FRAMES, 3), 20.0)
    assert torch.equal(mouths(conditioned, *conditions), mouths(plain))
    assert torch.equal(mouths(plain, *conditions), mouths(plain))


def test_packaged_weights_are_unconditioned() -> None:
    model = load_generator("default").model
    assert isinstance(model, LipSyncGenerator)
    assert (model.emotion, model.pose) == (None, None)


def test_each_sample_has_its_own_emotion() -> None:
    model = make_conditioned()
    first, mixed = mouths(model), mouths(model, torch.tensor([0, 1]))
    assert mixed.shape == (2, FRAMES, 3, SPEC.mouth_size, SPEC.mouth_size)
    torch.testing.assert_close(mixed[0], first[0])
    assert (mixed[1] - first[1]).abs().max() > 1e-3


def test_head_turn_affects_only_its_frame() -> None:
    model = make_conditioned()
    turn = torch.zeros(2, FRAMES, 3)
    torch.testing.assert_close(mouths(model, None, turn), mouths(model))
    turn[0, 1, 0] = 15.0
    change = (mouths(model, None, turn) - mouths(model)).abs().amax((2, 3, 4))
    assert change[0, 1] > 1e-3
    assert change.flatten()[[0, 2, 3, 4, 5]].max() < 1e-5


def test_choose_emotion_sets_the_default() -> None:
    model = make_conditioned()
    expected = mouths(model, torch.tensor([1, 1]))
    choose_emotion(model.emotion, "happy")
    torch.testing.assert_close(mouths(model), expected)
    with pytest.raises(UsageError, match="no emotion sad: it has neutral, happy"):
        choose_emotion(model.emotion, "sad")
    with pytest.raises(UsageError, match="no emotion happy: it has none"):
        choose_emotion(make(GENERATOR).emotion, "happy")


def test_emotion_names_are_in_the_checkpoint(tmp_path: Path) -> None:
    meta = {"generator": CONDITIONED, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "-"}
    save_release(tmp_path / "m.safetensors", "generator", make_conditioned(), meta)
    loaded: Any = load_generator(tmp_path / "m.safetensors").model
    assert loaded.emotion.names == ["neutral", "happy"]
    assert loaded.pose is not None
