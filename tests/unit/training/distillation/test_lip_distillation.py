"""Distillation of a lip prior into a small network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.late_clips import make_late_corpus
from helpers.media_files import write_wav
from helpers.small_predictor import SPEC

from talkinghead.data.clip_file import ClipFile
from talkinghead.errors import CheckpointError, CorpusError, UsageError
from talkinghead.models.lip_motion_network import LipMotionNetwork
from talkinghead.training.distillation.distillation_options import DistillationOptions
from talkinghead.training.distillation.distillation_sampler import DistillationSampler
from talkinghead.training.distillation.lip_distillation import (
    distil_lip_prior,
    opening_correlation_with_prior,
)
from talkinghead.training.distillation.recordings import (
    Recording,
    load_recordings,
    read_recordings,
    recording_probabilities,
    save_recordings,
    split_voices,
    stretch_recording,
)
from talkinghead.types import AudioClip


class LevelPrior:
    """A lip prior whose only input, and whose mouth opening, is the level of the frame."""

    def recording_inputs(self, samples, num_frames):
        frames = np.resize(samples, num_frames * 640).reshape(num_frames, 640)
        return np.abs(frames).mean(1, keepdims=True).astype(np.float16)

    def motion_of(self, inputs):
        heights = torch.zeros(len(inputs), 20, 2)
        heights[:, 12:, 1] = 60 * inputs * torch.tensor([-1.0] * 4 + [1.0] * 4)
        return heights.flatten(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def recordings(folder):
    """Return recordings of two clips and two voices."""
    manifest = make_late_corpus(folder / "corpus", 0, num_speakers=2, clips_per_speaker=2)
    for number, clip in enumerate(manifest.clips[::2]):
        samples = ClipFile(folder / "corpus" / clip.path).audio()
        (folder / "voices").mkdir(exist_ok=True)
        audio = AudioClip(samples, 16_000)
        write_wav(folder / "voices" / f"{number}.wav", audio)
    return read_recordings(SPEC, [folder / "corpus"], folder / "voices", LevelPrior())


def small_network():
    torch.manual_seed(0)
    sizes = {"mel_channels": 24, "mel_dilations": [1], "channels": 32, "dilations": [1, 2]}
    return LipMotionNetwork(**sizes, dropout=0.1)


QUICK = DistillationOptions(num_iterations=4, batch_size=2, num_frames=20)


def test_network_learns_the_predicted_lip_motion(recordings):
    assert [clip.corpus for clip in recordings] == [0, 0, None, None]
    network = small_network()
    quick = {"batch_size": 4, "num_frames": 40, "feature_weight": 0.01}
    options = DistillationOptions(num_iterations=100, lr=5e-3, **quick)
    student = distil_lip_prior(network, SPEC, recordings, options)
    before, after = (
        opening_correlation_with_prior(n.eval(), SPEC, recordings[2:]) for n in (network, student)
    )
    assert after > max(0.7, before + 0.3)


def test_interrupted_training_continues_with_equal_weights(recordings, tmp_path):
    network = small_network()
    whole = distil_lip_prior(network, SPEC, recordings, QUICK)
    # A limit that is reached after the first step interrupts the training.
    state = tmp_path / "state.pt"
    distil_lip_prior(network, SPEC, recordings, replace(QUICK, max_minutes=1e-9), state)
    saved = torch.load(state, weights_only=True)
    assert saved["step"] == 1
    resumed = distil_lip_prior(network, SPEC, recordings, QUICK, state)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0), name
    torch.save({**saved, "student": {}}, state)
    with pytest.raises(CheckpointError, match="delete it"):
        distil_lip_prior(network, SPEC, recordings, QUICK, state)


def test_recordings_are_stored(recordings, tmp_path):
    save_recordings(tmp_path / "recordings.pt", recordings)
    stored = load_recordings(tmp_path / "recordings.pt")
    assert [one.speaker for one in stored] == [one.speaker for one in recordings]
    for one, other in zip(stored, recordings, strict=True):
        assert torch.equal(one.predicted, other.predicted)
        assert torch.equal(one.features, other.features)


def recording(corpus=None, speaker=""):
    rows = torch.arange(100.0)[:, None]
    mel = torch.arange(320.0).expand(80, -1) / 320
    return Recording(mel, torch.zeros(100, 40) + rows, rows, corpus, speaker)


def test_probabilities_divide_between_voices_corpora_and_speakers():
    people = [(0, "a"), (0, "a"), (0, "a"), (0, "a"), (0, "b"), (1, "c"), None, None]
    clips = [recording(*(who or ())) for who in people]
    options = DistillationOptions(corpus_weights=(3, 1), temperature=0.5, voice_fraction=0.6)
    p = recording_probabilities(clips, options)
    assert p[6:] == pytest.approx([0.3, 0.3])
    assert p[5] == pytest.approx(0.4 / 4)
    # Speaker "a" has four clips and twice the weight of speaker "b".
    assert p[:5].sum() == pytest.approx(0.4 * 3 / 4)
    assert p[4] == pytest.approx(p[:4].sum() / 2)
    with pytest.raises(UsageError, match="3 corpus weights for 2"):
        recording_probabilities(clips, replace(options, corpus_weights=(1, 1, 1)))


def test_targets_belong_to_the_mel_frames_of_their_places():
    options = DistillationOptions(batch_size=1, num_frames=20, stretch=0, corpus_weights=(1,))
    sampler = DistillationSampler(small_network(), SPEC, [recording(0, "a")], options)
    # Without augmentation, the value of a mel frame is its position in the recording.
    mel, motion, features = sampler._draw(np.random.default_rng(3))
    places = sampler.places[-20:]
    frames = motion[:, 0]
    assert torch.equal(frames, features[:, 0])
    inside = frames.isfinite()
    assert inside.any()
    mel_frames = mel[0, places.round().long()] * 320
    expected = (frames + 0.5) * 3.2
    torch.testing.assert_close(mel_frames[inside], expected[inside], rtol=0, atol=0.51)


def test_augmented_mels_differ_and_stay_in_range():
    options = DistillationOptions(batch_size=8, num_frames=40)
    clips = [recording(), recording()]
    sampler = DistillationSampler(small_network(), SPEC, clips, options)
    first, again, other = (sampler.batch(number) for number in (0, 0, 1))
    assert torch.equal(first.mel, again.mel)
    assert not torch.equal(first.mel, other.mel)
    assert first.mel.abs().max() <= 4
    assert first.mel.isfinite().all()


def test_every_nth_voice_is_held_out():
    clips = [recording(0, "a"), *(recording() for _ in range(7))]
    kept, held_out = split_voices(clips, 3)
    assert (len(kept), len(held_out)) == (6, 2)
    assert held_out[0] is clips[3]
    assert kept[0] is clips[0]


def test_stretched_recording_keeps_mel_and_motion_together():
    fast = stretch_recording(recording(), 1.25)
    assert (len(fast.predicted), fast.mel.shape[1]) == (80, 256)
    # Frame 40 shows what frame 1.25 * 40.5 - 0.5 showed before.
    assert float(fast.predicted[40, 0]) == pytest.approx(50.125)
    assert float(fast.mel[0, 128] * 320 / 3.2) == pytest.approx(50.125, abs=0.4)
    assert fast.features.shape == (80, 1)


def test_missing_inputs_are_refused(recordings, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="0 files"):
        read_recordings(SPEC, [folder / "corpus"], tmp_path / "empty", LevelPrior())
