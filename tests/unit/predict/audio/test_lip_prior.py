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
        stream.listen(chunks, middle_s)
        tokens.append(stream.at([middle_s], reference))
        if lip_prior is not None:
            kept = max(kept, len(stream._lips._lips))
    return torch.cat(tokens), kept


@pytest.mark.parametrize("chunk", [333, 4000, 16_000, 10**6])
def test_lips_are_the_same_however_the_speech_comes(samples, chunk):
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


def test_lips_that_were_never_heard_are_unknown(samples):
    stream = LipPriorStream(LoudnessLipPrior(), SPEC)
    stream.push(samples[: stream.samples_for(9) - 1])
    assert stream.num_frames == 0
    stream.push(samples[stream.samples_for(9) - 1 : stream.samples_for(9)])
    assert stream.num_frames == 10
    lips = stream.at(-2, 12)
    assert lips.isfinite().all(-1).all(-1).tolist() == [False] * 2 + [True] * 10 + [False] * 2


@torch.inference_mode()
@pytest.mark.parametrize("chunk", [333, 16_000, 10**6])
def test_tokens_move_the_lips_as_the_listener_says(model, reference, samples, chunk):
    told = predict_lip_motion(LoudnessLipPrior(), samples, SPEC)[:78]
    tokens, _ = streamed(model, reference, samples, chunk, LoudnessLipPrior())
    assert np.allclose(model.decode_lip_motion(tokens), told, atol=1e-3)
    alone, _ = streamed(model, reference, samples, chunk, None)
    assert np.abs(model.decode_lip_motion(alone).numpy() - told).mean() > 0.1
    half = LoudnessLipPrior()
    half.share = 0.5
    between, _ = streamed(model, reference, samples, chunk, half)
    assert torch.allclose(between, (tokens + alone) / 2, atol=1e-4)


@torch.inference_mode()
def test_what_does_not_move_lips_stays(model, reference, samples):
    alone, _ = streamed(model, reference, samples, 16_000, None)
    moved = model.set_lip_motion(alone, torch.zeros(78, 20, 2)) - alone
    inside = torch.linalg.svd(model.lip_head.weight)[2][40:]
    assert moved.norm() > 0.1
    assert (moved @ inside.T).abs().max() < 1e-4
    unknown = torch.full((78, 20, 2), torch.nan)
    assert torch.equal(model.set_lip_motion(alone, unknown), alone)


@torch.inference_mode()
def test_memory_does_not_grow_with_the_length(model, reference, samples):
    tokens, kept = streamed(model, reference, np.tile(samples, 4), 4000, LoudnessLipPrior())
    assert len(tokens) > 300
    assert kept <= 30


@pytest.mark.parametrize(("fps", "on_grid"), [(25, True), (30, False), (60, False)])
def test_no_frame_waits_longer_than_promised(model, fps, on_grid):
    stream = TokenStream(model, SPEC, lip_prior=LoudnessLipPrior())
    middles_s = [(frame + Fraction(1, 2)) / fps for frame in range(10 * fps)]
    waits_s = [Fraction(stream.samples_for(m), 16_000) - m for m in middles_s]
    promised_s = stream.lookahead_s(on_grid)
    assert max(waits_s) <= promised_s
    assert max(waits_s) > promised_s - Fraction(1, 25)


def test_a_listener_that_does_not_fit_is_refused(model):
    slow = LoudnessLipPrior()
    slow.sample_rate = 8000
    with pytest.raises(UsageError, match="hears 8000 Hz"):
        LipSyncPredictor(model, SPEC, lip_prior=slow)
