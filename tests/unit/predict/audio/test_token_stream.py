"""Tokens of streams: equality with whole recordings, bounded memory, lip priors, articulation."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.lip_priors import LoudnessLipPrior
from helpers.small_predictor import lip_generator, speech

from talkinghead.features.audio_features import AudioFeatures, mel_windows
from talkinghead.media.timing import num_frames_for
from talkinghead.models.lipsync.lip_warp import lip_gaps
from talkinghead.predict.audio.lip_priors.lip_prior import predict_lip_motion
from talkinghead.predict.audio.token_stream import TokenStream, articulate
from talkinghead.types import AVSpec

SPEC = AVSpec()
FEATURES = ("mel", "prosody")
SAMPLES = speech(3.13).samples
MIDDLES_S = [(frame + Fraction(1, 2)) / 25 for frame in range(78)]


@pytest.fixture(scope="module")
def model():
    return lip_generator(audio_features=FEATURES).requires_grad_(False)


def encode(model, face):
    return model.encode_reference(face, torch.zeros(1, 20, 2))


@pytest.fixture(scope="module")
def reference(model):
    return encode(model, torch.rand(1, 3, 256, 256))


def whole(model, reference):
    """Return the tokens of all grid frames, encoded in one pass."""
    past = model.context_frames
    frames = range(-past, 79 + model.lookahead_frames)
    features = AudioFeatures(SPEC, FEATURES)(torch.from_numpy(SAMPLES))
    windows = mel_windows(features, frames, SPEC.fps, SPEC, FEATURES)
    return model.encode_audio(windows[None], reference)[0, past : past + 79]


def streamed(
    model, reference, *, samples=SAMPLES, chunk=16_000, chunk_frames=7, fps=SPEC.fps, lip_prior=None
):
    """Return the tokens and the maximum numbers of mel frames and lip-motion frames in memory."""
    stream = TokenStream(model, SPEC, chunk_frames, lip_prior)
    chunks = iter(np.split(samples, range(chunk, len(samples), chunk)))
    duration_s = Fraction(len(samples), SPEC.sample_rate)
    tokens, mels, lips = [], 0, 0
    for frame in range(num_frames_for(duration_s, fps)):
        middle_s = (frame + Fraction(1, 2)) / fps
        stream.pull_until(chunks, middle_s)
        tokens.append(stream.at([middle_s], reference))
        mels = max(mels, stream._mel_CM.shape[1])
        lips = max(lips, 0 if lip_prior is None else len(stream._lip_motion._motion))
    stream.pull_until(chunks, duration_s + 1)
    assert stream.duration_s == duration_s
    return torch.cat(tokens), mels, lips


@pytest.mark.parametrize(("chunk", "chunk_frames"), [(333, 1), (16_000, 7), (10**6, 25)])
def test_tokens_of_stream_equal_tokens_of_whole_recording(model, reference, chunk, chunk_frames):
    expected = whole(model, reference)
    got, *_ = streamed(model, reference, chunk=chunk, chunk_frames=chunk_frames)
    assert torch.allclose(got, expected, atol=1e-5)
    assert expected.std(0).mean() > 0.01


@pytest.mark.parametrize("fps", [Fraction(30_000, 1001), Fraction(60)])
def test_tokens_between_grid_frames_are_interpolated(model, reference, fps):
    grid = whole(model, reference).numpy()
    got, *_ = streamed(model, reference, fps=fps)
    positions = (np.arange(len(got)) + 0.5) / float(fps) * 25 - 0.5
    for column in range(grid.shape[1]):
        expected = np.interp(positions, np.arange(len(grid)), grid[:, column])
        assert np.allclose(got[:, column], expected, atol=1e-4)


def test_frames_may_be_skipped_and_the_reference_may_change(model, reference):
    other = encode(model, torch.zeros(1, 3, 256, 256))
    stream = TokenStream(model, SPEC, 5)
    stream.push(SAMPLES)
    stream.finish()
    for indices, face in (([2, 3], reference), ([40, 41], reference), ([41, 42, 70], other)):
        tokens = stream.at([MIDDLES_S[index] for index in indices], face)
        assert torch.allclose(tokens, whole(model, face)[indices], atol=1e-5)


def test_memory_does_not_grow_with_duration(model, reference):
    prior = LoudnessLipPrior()
    _, short, _ = streamed(model, reference, chunk=4000, lip_prior=prior)
    _, long, lips = streamed(
        model, reference, samples=np.tile(SAMPLES, 4), chunk=4000, lip_prior=prior
    )
    assert long == short
    assert lips <= 30


def test_speech_is_dropped_while_no_face_is_visible(model, reference):
    stream = TokenStream(model, SPEC, 5, LoudnessLipPrior())
    mels = []
    for second in range(20):
        stream.push(SAMPLES[:16_000])
        stream.drop_before(Fraction(second))
        mels.append(stream._mel_CM.shape[1])
    assert max(mels[3:]) <= 250
    assert len(stream._lip_motion._motion) <= 50
    samples = np.tile(SAMPLES[:16_000], 20)
    expected, *_ = streamed(model, reference, samples=samples, lip_prior=LoudnessLipPrior())
    stream.finish()
    tokens = stream.at([Fraction(2 * frame + 1, 50) for frame in range(480, 500)], reference)
    assert torch.allclose(tokens, expected[480:], atol=1e-5)
    stream.drop_before(Fraction(90))
    tokens = stream.at([Fraction(100)], reference)
    assert torch.allclose(tokens, expected[-1:], atol=1e-5)


def test_speech_shorter_than_a_window_gives_one_token(model, reference):
    got, *_ = streamed(model, reference, samples=np.full(100, 0.1, np.float32), chunk=50)
    assert got.shape == (1, 64)


def test_tokens_encode_lip_prior_motion(model, reference):
    expected = predict_lip_motion(LoudnessLipPrior(), SAMPLES, SPEC)[:79]
    half = LoudnessLipPrior()
    half.blend_weight = 0.5
    tokens, alone, between = (
        streamed(model, reference, chunk=333, lip_prior=prior)[0]
        for prior in (LoudnessLipPrior(), None, half)
    )
    assert np.allclose(model.decode_lip_motion(tokens), expected, atol=1e-3)
    assert np.abs(model.decode_lip_motion(alone).numpy() - expected).mean() > 0.1
    assert torch.allclose(between, (tokens + alone) / 2, atol=1e-4)
    unknown = torch.full((79, 20, 2), torch.nan)
    assert torch.equal(model.set_lip_motion(alone, unknown), alone)


@pytest.mark.parametrize(("fps", "on_grid"), [(25, True), (30, False), (60, False)])
def test_lookahead_is_maximum_wait_for_speech(model, fps, on_grid):
    stream = TokenStream(model, SPEC, lip_prior=LoudnessLipPrior())
    middles_s = [(frame + Fraction(1, 2)) / fps for frame in range(10 * fps)]
    waits_s = [Fraction(stream.samples_for(m), 16_000) - m for m in middles_s]
    longest_s = stream.lookahead_s(on_grid)
    assert longest_s - Fraction(1, 25) < max(waits_s) <= longest_s


SILENCE = torch.randn(64, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randn(5, 64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("articulation", [0.0, 0.5])
def test_articulation_below_one_interpolates_with_silence(model, articulation):
    expected = SILENCE + articulation * (TOKENS - SILENCE)
    assert torch.allclose(articulate(model, TOKENS, SILENCE, articulation), expected, atol=1e-5)


def test_articulation_above_one_extrapolates_only_lip_motion(model):
    moved = articulate(model, TOKENS, SILENCE, 2.0) - TOKENS
    other_directions = torch.linalg.svd(model.lip_head.weight)[2][40:]
    assert moved.norm() > 1
    assert (moved @ other_directions.T).abs().max() < 1e-4


def articulated(model, gap, articulation=2.0):
    """Return the articulated displacement [20, 2] of lips that the jaw opened by `gap` pixels."""
    rest = model.decode_lip_motion(SILENCE)[None]
    lips = rest.clone()
    lips[:, [7, 8, 9, 10, 11, 17, 18, 19], 1] += gap
    tokens = articulate(model, model.set_lip_motion(SILENCE[None], lips), SILENCE, articulation)
    return (model.decode_lip_motion(tokens) - rest)[0]


def test_articulation_above_one_expands_the_opening(model):
    gaps = [float(lip_gaps(articulated(model, gap)[None]).mean()) for gap in (0, 1.5, 3, 4, 6)]
    assert gaps[0] == pytest.approx(0, abs=0.1)
    assert gaps[1] == pytest.approx(2.3 * 1.5 - 1.8, rel=0.25)
    assert gaps[2] == pytest.approx(2.3 * 3 - 1.8, rel=0.25)
    # The upper lip rises by 0.17 of the gap in addition.
    assert np.diff(gaps[3:]) == pytest.approx(1.17 * 2.3 * 2, rel=0.05)
    weak = lip_gaps(articulated(model, 6, 1.001)[None]).mean()
    assert float(weak) == pytest.approx(6, abs=0.05)


@pytest.mark.parametrize("gap", [6, 0])
def test_articulation_above_one_raises_upper_lip_with_opening(model, gap):
    moved = articulated(model, gap)
    upper, corners = moved[[2, 3, 4, 13, 14, 15], 1], moved[[0, 6, 12, 16]]
    assert corners.abs().max() < 1e-3
    assert moved[:, 0].abs().max() < 1e-3
    if gap > 0:
        assert (upper < -1).all()
    else:
        assert (upper > 0).all()
