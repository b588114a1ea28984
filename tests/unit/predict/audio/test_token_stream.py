"""Tokens of streams: equal to those of the whole recording, with bounded memory."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from talkinghead.features.audio_features import AudioFeatures, mel_windows
from talkinghead.media.timing import num_frames_for
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.predict.audio.token_stream import TokenStream
from talkinghead.types import AVSpec

SPEC = AVSpec()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LipSyncGenerator(
        dim=32,
        audio_features=("mel", "prosody"),
        audio_channels=(4, 4, 8, 8),
        face_encoder="small",
        num_layers=2,
        num_heads=2,
        past_frames=3,
        decoder_channels=(16, 16, 8, 8),
        context_channels=(4, 4, 8, 8),
    ).eval()


@pytest.fixture(scope="module")
def reference(model):
    with torch.inference_mode():
        return model.encode_reference(torch.rand(1, 3, 256, 256), torch.zeros(1, 20, 2))


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    envelope = np.sin(np.arange(50_123) / 3000) ** 2
    return (0.3 * envelope * rng.standard_normal(50_123)).astype(np.float32)


def whole(model, reference, samples):
    """Return the tokens of all grid frames, encoded in one pass."""
    features = AudioFeatures(SPEC, ("mel", "prosody"))(torch.from_numpy(samples))
    count = num_frames_for(Fraction(len(samples), SPEC.sample_rate), SPEC.fps)
    past = model.context_frames
    frames = range(-past, count + model.lookahead_frames)
    windows = mel_windows(features, frames, SPEC.fps, SPEC, ("mel", "prosody"))
    return model.encode_audio(windows[None], reference)[0, past : past + count]


def streamed(model, reference, samples, chunk, chunk_frames, fps=SPEC.fps):
    stream = TokenStream(model, SPEC, chunk_frames)
    chunks = iter(np.split(samples, range(chunk, len(samples), chunk)))
    duration_s = Fraction(len(samples), SPEC.sample_rate)
    tokens, kept = [], 0
    for frame in range(num_frames_for(duration_s, fps)):
        middle_s = (frame + Fraction(1, 2)) / fps
        stream.pull_until(chunks, middle_s)
        tokens.append(stream.at([middle_s], reference))
        kept = max(kept, stream._mel_CM.shape[1])
    stream.pull_until(chunks, duration_s + 1)
    assert stream.duration_s == duration_s
    return torch.cat(tokens), kept


@torch.inference_mode()
@pytest.mark.parametrize(("chunk", "chunk_frames"), [(333, 1), (16_000, 7), (10**6, 25)])
def test_stream_equals_the_whole_recording(model, reference, samples, chunk, chunk_frames):
    expected = whole(model, reference, samples)
    got, _ = streamed(model, reference, samples, chunk, chunk_frames)
    assert torch.allclose(got, expected, atol=1e-5)
    assert expected.std(0).mean() > 0.01


@torch.inference_mode()
@pytest.mark.parametrize("fps", [Fraction(30_000, 1001), Fraction(60)])
def test_tokens_between_grid_frames_are_interpolated(model, reference, samples, fps):
    grid = whole(model, reference, samples).numpy()
    got, _ = streamed(model, reference, samples, 16_000, 25, fps)
    positions = (np.arange(len(got)) + 0.5) / float(fps) * 25 - 0.5
    for column in range(grid.shape[1]):
        expected = np.interp(positions, np.arange(len(grid)), grid[:, column])
        assert np.allclose(got[:, column], expected, atol=1e-4)


@torch.inference_mode()
def test_tokens_after_a_change_of_reference_are_those_of_the_new_one(model, reference, samples):
    other = model.encode_reference(torch.zeros(1, 3, 256, 256), torch.zeros(1, 20, 2))
    stream = TokenStream(model, SPEC)
    stream.push(samples)
    stream.finish()
    middles_s = [(frame + Fraction(1, 2)) / 25 for frame in range(60)]
    assert torch.allclose(
        stream.at(middles_s[:30], reference), whole(model, reference, samples)[:30], atol=1e-5
    )
    assert torch.allclose(
        stream.at(middles_s[30:], other), whole(model, other, samples)[30:60], atol=1e-5
    )


@torch.inference_mode()
def test_memory_does_not_grow_with_duration(model, reference, samples):
    _, short = streamed(model, reference, samples, 4000, 5)
    _, long = streamed(model, reference, np.tile(samples, 4), 4000, 5)
    assert long == short


@torch.inference_mode()
def test_speech_shorter_than_a_window_gives_one_token(model, reference):
    got, _ = streamed(model, reference, np.full(100, 0.1, np.float32), 50, 25)
    assert got.shape == (1, 32)


@torch.inference_mode()
def test_frames_may_be_skipped(model, reference, samples):
    stream = TokenStream(model, SPEC, 5)
    stream.push(samples)
    stream.finish()
    middles_s = [(frame + Fraction(1, 2)) / 25 for frame in (2, 3, 40, 41, 70)]
    expected = whole(model, reference, samples)[[2, 3, 40, 41, 70]]
    first, rest = stream.at(middles_s[:2], reference), stream.at(middles_s[2:], reference)
    assert torch.allclose(torch.cat([first, rest]), expected, atol=1e-5)
