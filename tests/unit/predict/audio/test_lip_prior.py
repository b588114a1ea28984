"""Lip priors: independence of chunks, blending with the generator, bounded memory."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.lip_priors import LoudnessLipPrior
from helpers.small_predictor import lip_generator, speech

from talkinghead.errors import UsageError
from talkinghead.predict.audio.lip_prior import LipPriorStream, predict_lip_motion
from talkinghead.predict.audio.token_stream import TokenStream
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import AVSpec

SPEC = AVSpec()


@pytest.fixture(scope="module")
def samples():
    return speech(3.13).samples


@pytest.fixture(scope="module")
def model():
    return lip_generator()


@pytest.fixture(scope="module")
def reference(model):
    with torch.inference_mode():
        return model.encode_reference(torch.rand(1, 3, 256, 256), torch.zeros(1, 20, 2))


def streamed(model, reference, samples, chunk, lip_prior, fps=SPEC.fps):
    stream = TokenStream(model, SPEC, 7, lip_prior)
    chunks = iter(np.split(samples, range(chunk, len(samples), chunk)))
    tokens, kept = [], 0
    for frame in range(int(len(samples) / 16_000 * fps)):
        middle_s = (frame + Fraction(1, 2)) / fps
        stream.pull_until(chunks, middle_s)
        tokens.append(stream.at([middle_s], reference))
        if lip_prior is not None:
            kept = max(kept, len(stream._lip_motion._motion))
    return torch.cat(tokens), kept


@pytest.mark.parametrize("chunk", [333, 16_000, 10**6])
def test_chunk_size_makes_no_difference(samples, chunk):
    stream = LipPriorStream(LoudnessLipPrior(), SPEC)
    for part in np.split(samples, range(chunk, len(samples), chunk)):
        stream.push(part)
    stream.finish()
    lips = stream.at(0, stream.num_frames)
    expected = predict_lip_motion(LoudnessLipPrior(), samples, SPEC)
    assert torch.equal(lips, torch.from_numpy(expected))
    assert len(lips) == 80  # 3.13 s, eight blocks.
    level = np.abs(np.pad(samples, (0, 80 * 640 - len(samples)))).reshape(80, 640).mean(1)
    assert np.corrcoef(lips[:, 0, 0], level)[0, 1] > 0.99


def test_motion_without_its_speech_is_nan(samples):
    stream = LipPriorStream(LoudnessLipPrior(), SPEC)
    stream.push(samples[: stream.samples_for(9) - 1])
    assert stream.num_frames == 0
    stream.push(samples[stream.samples_for(9) - 1 : stream.samples_for(9)])
    assert stream.num_frames == 10
    lips = stream.at(-2, 12)
    assert lips.isfinite().all(-1).all(-1).tolist() == [False] * 2 + [True] * 10 + [False] * 2


@torch.inference_mode()
@pytest.mark.parametrize("chunk", [333, 10**6])
def test_tokens_have_the_motion_of_the_prior(model, reference, samples, chunk):
    expected = predict_lip_motion(LoudnessLipPrior(), samples, SPEC)[:78]
    tokens, _ = streamed(model, reference, samples, chunk, LoudnessLipPrior())
    assert np.allclose(model.decode_lip_motion(tokens), expected, atol=1e-3)
    alone, _ = streamed(model, reference, samples, chunk, None)
    assert np.abs(model.decode_lip_motion(alone).numpy() - expected).mean() > 0.1
    half = LoudnessLipPrior()
    half.blend_weight = 0.5
    between, _ = streamed(model, reference, samples, chunk, half)
    assert torch.allclose(between, (tokens + alone) / 2, atol=1e-4)


@torch.inference_mode()
def test_setting_lip_motion_keeps_all_else(model, reference, samples):
    alone, _ = streamed(model, reference, samples, 16_000, None)
    moved = model.set_lip_motion(alone, torch.zeros(78, 20, 2)) - alone
    other_directions = torch.linalg.svd(model.lip_head.weight)[2][40:]
    assert moved.norm() > 0.1
    assert (moved @ other_directions.T).abs().max() < 1e-4
    unknown = torch.full((78, 20, 2), torch.nan)
    assert torch.equal(model.set_lip_motion(alone, unknown), alone)


@torch.inference_mode()
def test_memory_does_not_grow_with_duration(model, reference, samples):
    tokens, kept = streamed(model, reference, np.tile(samples, 4), 4000, LoudnessLipPrior())
    assert len(tokens) > 300
    assert kept <= 30


@pytest.mark.parametrize(("fps", "on_grid"), [(25, True), (30, False), (60, False)])
def test_lookahead_is_the_longest_wait(model, fps, on_grid):
    stream = TokenStream(model, SPEC, lip_prior=LoudnessLipPrior())
    middles_s = [(frame + Fraction(1, 2)) / fps for frame in range(10 * fps)]
    waits_s = [Fraction(stream.samples_for(m), 16_000) - m for m in middles_s]
    longest_s = stream.lookahead_s(on_grid)
    assert max(waits_s) <= longest_s
    assert max(waits_s) > longest_s - Fraction(1, 25)


def test_prior_with_another_sample_rate_is_refused(model):
    slow = LoudnessLipPrior()
    slow.sample_rate = 8000
    with pytest.raises(UsageError, match="works at 8000 Hz"):
        LipSyncPredictor(model, SPEC, lip_prior=slow)


class Curve:
    """Lip prior that needs no audio: a curve over time."""

    past_s, block_s, ahead_s = Fraction(0), Fraction(2, 5), Fraction(0)
    sample_rate, fps, blend_weight = 16_000, Fraction(25), 1.0

    def predict_motion(self, windows, first_frame):
        frames = np.arange(first_frame, first_frame + 10 * len(windows), dtype=np.float32)
        return np.broadcast_to(frames.reshape(-1, 10, 1, 1), (len(windows), 10, 20, 2)).copy()


def test_prior_may_depend_on_time_alone(samples):
    stream = LipPriorStream(Curve(), SPEC)
    for part in np.split(samples, range(5000, len(samples), 5000)):
        stream.push(part)
    stream.finish()
    assert stream.at(0, 80)[:, 3, 1].tolist() == list(range(80))
