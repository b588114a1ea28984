"""Adaptation of the decoder to the mouths of one person."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.small_predictor import SPEC, lip_generator

from talkinghead.errors import CheckpointError
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.predict import decoder_adaptation
from talkinghead.predict.audio.calibration import SpokenClip
from talkinghead.predict.decoder_adaptation import (
    MouthFrames,
    adapt_decoder,
    with_decoder_tensors,
)
from talkinghead.predict.source.source_frame import Reference, SourceFrame

NUM_FRAMES = 300
TRANSFORM = np.float32([[2, 0, -40], [0, 2, -20]])
"""From the pixels of the images, 160 x 160, to the canonical face."""
LIPS = np.float32([[84 + 2 * n % 40, 90 + n] for n in range(20)])


def make_frames():
    """Yield frames of a face with a red mouth whose lower lip moves."""
    opening = 3 * np.sin(np.arange(NUM_FRAMES))
    for number, gap in enumerate(opening):
        image = np.full((160, 160, 3), (150, 120, 100), np.uint8)
        image[90 : 105 + round(gap), 70:100] = (180, 40, 40)
        lips = LIPS + np.float32([0, gap]) * (np.arange(20) > 9)[:, None]
        time_s = Fraction(number, 25)
        yield SourceFrame(
            image, time_s, Fraction(1, 25), TRANSFORM, lips=lips, opening=gap, file_time_s=time_s
        )


@pytest.fixture(scope="module")
def clip():
    frames = list(make_frames())
    lips = np.stack([frame.lips * 2 + TRANSFORM[:, 2] for frame in frames])
    samples = np.random.default_rng(0).standard_normal(NUM_FRAMES * 640).astype(np.float32)
    reference = Reference(frames[0].image, TRANSFORM, frames[0].lips)
    return SpokenClip("me.mp4", 0.1 * samples, lips.astype(np.float32), reference, SPEC)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return lip_generator().eval()


@pytest.fixture
def few_iterations(monkeypatch):
    monkeypatch.setattr(decoder_adaptation, "_ITERATIONS", 20)
    monkeypatch.setattr(decoder_adaptation, "_SHIFT_ITERATIONS", 5)
    monkeypatch.setattr(decoder_adaptation, "_INTERVAL_S", Fraction(1, 10))


def halves():
    return np.arange(NUM_FRAMES) % 50 >= 25


def collect():
    mouths = MouthFrames(SPEC)
    assert len(list(mouths.collect(make_frames()))) == NUM_FRAMES
    return mouths.frames


@pytest.mark.slow
def test_held_out_mouths_become_more_similar(few_iterations, model, clip):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors, errors = adapt_decoder(model, clip, collect(), halves())
    assert errors["after"] < 0.9 * errors["before"]
    adapted = with_decoder_tensors(model, tensors)
    changed = {
        name
        for name, tensor in adapted.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == {f"decoder.{name}" for name in tensors}
    assert adapted.face_encoder is model.face_encoder
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_collected_frames_are_canonical_and_limited(monkeypatch):
    monkeypatch.setattr(decoder_adaptation, "_MAX_FRAMES", 20)
    frames = collect()
    assert 10 < len(frames) <= 20
    assert frames[0].image.shape == (SPEC.face_size, SPEC.face_size, 3)
    assert np.ptp(np.diff([float(frame.time_s) for frame in frames])) < 1e-6


def test_decoder_is_not_adapted_to_too_few_frames(model, clip):
    assert adapt_decoder(model, clip, collect()[:45], halves()) == ({}, {})


def test_tensors_of_another_model_are_refused(model):
    other: LipSyncGenerator = lip_generator()
    tensors = {"head.weight": torch.zeros_like(other.decoder.head.weight)[:, :2]}
    with pytest.raises(CheckpointError, match="made for another model"):
        with_decoder_tensors(model, tensors)
