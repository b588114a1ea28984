"""Distillation of a lip prior into the audio encoder."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.late_clips import make_late_corpus
from helpers.media_files import write_wav
from helpers.small_predictor import GENERATOR, SPEC

from talkinghead.data.clip_file import ClipFile
from talkinghead.errors import CheckpointError, CorpusError, UsageError
from talkinghead.models.checkpoint import build
from talkinghead.training.distillation.distillation_sampler import (
    DistillationOptions,
    DistillationSampler,
    recording_probabilities,
)
from talkinghead.training.distillation.lip_distillation import (
    distil_lip_prior,
    opening_correlation_with_prior,
)
from talkinghead.training.distillation.recordings import (
    Recording,
    load_recordings,
    read_recordings,
    save_recordings,
    split_voices,
    stretch_recording,
)
from talkinghead.types import AudioClip


class Whisper:
    """A speech encoder whose only feature is the level of 20 ms."""

    def encode(self, clips):
        frames = clips[:, : clips.shape[1] // 320 * 320].reshape(len(clips), -1, 320)
        return np.abs(frames).mean(2, keepdims=True).astype(np.float32)


class LevelPrior:
    """A lip prior whose mouth opening is the level of the middle of the context."""

    def motion_of(self, inputs):
        heights = torch.zeros(len(inputs), 20, 2)
        heights[:, 12:, 1] = 60 * inputs[:, 5:6] * torch.tensor([-1.0] * 4 + [1.0] * 4)
        return heights.flatten(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def recordings(folder):
    """Return a generator, and recordings of two clips and two voices."""
    torch.manual_seed(0)
    model = build("generator", GENERATOR, SPEC)
    torch.nn.init.normal_(model.lip_head.weight, std=0.5)
    manifest = make_late_corpus(folder / "corpus", 0, num_speakers=2, clips_per_speaker=2)
    for number, clip in enumerate(manifest.clips[::2]):
        samples = ClipFile(folder / "corpus" / clip.path).tensor("audio") / 32_767
        (folder / "voices").mkdir(exist_ok=True)
        audio = AudioClip(samples.astype(np.float32), 16_000)
        write_wav(folder / "voices" / f"{number}.wav", audio)
    folders = [folder / "corpus"], folder / "voices"
    return model, read_recordings(model, SPEC, *folders, Whisper(), LevelPrior())


QUICK = DistillationOptions(num_iterations=4, batch_size=2, num_frames=20)


@pytest.mark.slow
def test_student_learns_lip_motion_and_leaves_rendering_unchanged(recordings):
    model, clips = recordings
    assert [clip.corpus for clip in clips] == [0, 0, None, None]
    quick = {"batch_size": 4, "num_frames": 40, "token_weight": 0.0, "feature_weight": 0.01}
    options = DistillationOptions(num_iterations=60, lr=1e-2, **quick)
    student = distil_lip_prior(model, SPEC, clips, options)
    changed = {
        name.split(".")[0]
        for name, value in student.state_dict().items()
        if not torch.equal(value, model.state_dict()[name])
    }
    assert changed == {"audio_encoder", "transformer"}
    before, after = (opening_correlation_with_prior(m, SPEC, clips[2:]) for m in (model, student))
    assert after > max(0.5, before + 0.2)


def test_interrupted_training_continues_with_equal_weights(recordings, tmp_path):
    model, clips = recordings
    whole = distil_lip_prior(model, SPEC, clips, QUICK)
    # A limit that is reached after the first step interrupts the training.
    state = tmp_path / "state.pt"
    distil_lip_prior(model, SPEC, clips, replace(QUICK, max_minutes=1e-9), state)
    saved = torch.load(state, weights_only=True)
    assert saved["step"] == 1
    resumed = distil_lip_prior(model, SPEC, clips, QUICK, state)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0), name
    torch.save({**saved, "student": {}}, state)
    with pytest.raises(CheckpointError, match="delete it"):
        distil_lip_prior(model, SPEC, clips, QUICK, state)


def test_recordings_are_stored(recordings, tmp_path):
    _, clips = recordings
    save_recordings(tmp_path / "recordings.pt", clips)
    stored = load_recordings(tmp_path / "recordings.pt")
    assert [one.speaker for one in stored] == [one.speaker for one in clips]
    for one, other in zip(stored, clips, strict=True):
        torch.testing.assert_close(one.detected, other.detected, equal_nan=True)
        assert torch.equal(one.features, other.features)


def recording(corpus=None, speaker=""):
    rows = torch.arange(100.0)[:, None]
    mel = torch.arange(320.0).expand(80, -1) / 320
    zeros = torch.zeros(100, 40)
    known = None if corpus is None else zeros + 1
    faces = None if corpus is None else torch.zeros(1, 4)
    return Recording(mel, zeros + rows, rows, known, faces, corpus, speaker)


def test_probabilities_divide_between_voices_corpora_and_speakers():
    people = [(0, "a"), (0, "a"), (0, "a"), (0, "a"), (0, "b"), (1, "c"), None, None]
    clips = [recording(*(who or ())) for who in people]
    options = DistillationOptions(corpus_weights=(3, 1), temperature=0.5)
    p = recording_probabilities(clips, options) * 0.95
    assert p[6:] == pytest.approx([0.3, 0.3])
    assert p[5] == pytest.approx(0.35 / 4)
    # Speaker "a" has four clips and twice the weight of speaker "b".
    assert p[:5].sum() == pytest.approx(0.35 * 3 / 4)
    assert p[4] == pytest.approx(p[:4].sum() / 2)
    with pytest.raises(UsageError, match="3 corpus weights for 2"):
        recording_probabilities(clips, replace(options, corpus_weights=(1, 1, 1)))


def test_targets_of_later_corpora_are_detected_or_predicted(recordings):
    model, clips = recordings
    faces = clips[0].faces[:1]
    clips = [replace(recording(*who), faces=faces) for who in ((0, "a"), (1, "b"))]
    options = DistillationOptions(voice_fraction=0, silence_fraction=0, predicted_fraction=0.5)
    for weights, expected in (((1, 0), {True}), ((0, 1), {True, False})):
        chosen = replace(options, corpus_weights=weights, batch_size=1, num_frames=20)
        sampler = DistillationSampler(model, SPEC, clips, chosen)
        motions = [sampler.batch(number).motion for number in range(12)]
        detected = {bool((m[m.isfinite()] == 1).all()) for m in motions}
        assert detected == expected


def test_every_nth_voice_is_held_out():
    clips = [recording(0, "a"), *(recording() for _ in range(7))]
    kept, held_out = split_voices(clips, 3)
    assert (len(kept), len(held_out)) == (6, 2)
    assert held_out[0] is clips[3]
    assert kept[0] is clips[0]


def test_stretched_recording_keeps_mel_and_motion_together():
    fast = stretch_recording(recording(0, "a"), 1.25)
    assert (len(fast.predicted), fast.mel.shape[1]) == (80, 256)
    # Frame 40 shows what frame 1.25 * 40.5 - 0.5 showed before.
    assert float(fast.predicted[40, 0]) == pytest.approx(50.125)
    assert float(fast.mel[0, 128] * 320 / 3.2) == pytest.approx(50.125, abs=0.4)
    assert fast.detected.shape == (80, 40)


def test_missing_inputs_are_refused(recordings, folder, tmp_path):
    model, clips = recordings
    (tmp_path / "empty").mkdir()
    inputs = [folder / "corpus"], tmp_path / "empty"
    with pytest.raises(CorpusError, match="0 files"):
        read_recordings(model, SPEC, *inputs, Whisper(), LevelPrior())
    faceless = [replace(clip, faces=None) for clip in clips]
    with pytest.raises(CorpusError, match="has known lips"):
        distil_lip_prior(model, SPEC, faceless, QUICK)
