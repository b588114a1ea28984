"""Scaling of lip motion relative to silence."""

import pytest
import torch
from helpers.small_predictor import lip_generator

from talkinghead.models.lipsync.lip_warp import lip_gaps
from talkinghead.predict.audio.articulation import articulate

MIDDLE_OF_UPPER, MIDDLE_OF_LOWER = [2, 3, 4, 13, 14, 15], [7, 9, 17, 18, 19]
CORNERS = [0, 6, 12, 16]


@pytest.fixture(scope="module")
def model():
    return lip_generator().requires_grad_(False)


@pytest.fixture(scope="module")
def silence():
    return torch.randn(64, generator=torch.Generator().manual_seed(1))


def opened(model, silence, jaw):
    """Return a token whose lower lip is `jaw` pixels below that of silence."""
    lips = model.decode_lip_motion(silence)[None].clone()
    lips[:, [7, 8, 9, 10, 11, 17, 18, 19], 1] += jaw
    return model.set_lip_motion(silence[None], lips)


@pytest.mark.parametrize("articulation", [0.0, 0.5])
def test_up_to_one_tokens_are_interpolated_with_silence(model, silence, articulation):
    tokens = torch.randn(5, 64)
    expected = silence + articulation * (tokens - silence)
    assert torch.allclose(articulate(model, tokens, silence, articulation), expected, atol=1e-5)


def test_above_one_the_upper_lip_rises_with_the_opening(model, silence):
    rest = model.decode_lip_motion(silence)
    moved = (
        model.decode_lip_motion(articulate(model, opened(model, silence, 5), silence, 2.0))[0]
        - rest
    )
    assert torch.allclose(moved[MIDDLE_OF_LOWER, 1], torch.tensor(10.0), atol=1e-3)
    assert (moved[MIDDLE_OF_UPPER, 1] < -2).all()
    assert moved[CORNERS].abs().max() < 1e-3
    assert moved[:, 0].abs().max() < 1e-3
    assert lip_gaps(moved[None]).mean() > 12


@pytest.mark.parametrize("jaw", [0, -5])
def test_upper_lip_of_a_closed_mouth_does_not_move(model, silence, jaw):
    moved = model.decode_lip_motion(articulate(model, opened(model, silence, jaw), silence, 2.0))[0]
    assert (moved - model.decode_lip_motion(silence))[MIDDLE_OF_UPPER].abs().max() < 1e-3


def test_above_one_only_lip_motion_is_extrapolated(model, silence):
    tokens = torch.randn(5, 64, generator=torch.Generator().manual_seed(2))
    moved = articulate(model, tokens, silence, 2.0) - tokens
    other_directions = torch.linalg.svd(model.lip_head.weight)[2][40:]
    assert moved.norm() > 1
    assert (moved @ other_directions.T).abs().max() < 1e-4
