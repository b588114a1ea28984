"""Distillation of a lip prior into the audio encoder."""

import numpy as np
import pytest
import torch
from helpers.late_clips import make_late_corpus
from helpers.media_files import write_wav
from helpers.small_predictor import GENERATOR, SPEC

from talkinghead.data.clip_file import ClipFile
from talkinghead.errors import CorpusError
from talkinghead.features.audio_features import mel_windows
from talkinghead.models.checkpoint import build
from talkinghead.training.lip_distillation import (
    DistillationOptions,
    distil_lip_prior,
    encode,
    read_recordings,
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


def lip_error(model, recording):
    """Return the mean squared error of the lip motion that the model predicts."""
    past, num_frames = model.context_frames, len(recording.motion)
    frames = range(-past, num_frames + model.lookahead_frames)
    windows = mel_windows(recording.mel, frames, SPEC.fps, SPEC)[None]
    with torch.no_grad():
        tokens = encode(model, windows, torch.zeros(1, model.lip_head.in_features))
        motion = model.decode_lip_motion(tokens)[0, past : past + num_frames].flatten(1)
    return float((motion - recording.motion).square().mean())


@pytest.fixture
def recordings(tmp_path):
    """Return a generator, and recordings of two clips and two voices."""
    torch.manual_seed(0)
    model = build("generator", GENERATOR, SPEC)
    manifest = make_late_corpus(tmp_path / "corpus", 0, num_speakers=2, clips_per_speaker=2)
    for number, clip in enumerate(manifest.clips[::2]):
        samples = ClipFile(tmp_path / "corpus" / clip.path).tensor("audio") / 32_767
        (tmp_path / "voices").mkdir(exist_ok=True)
        audio = AudioClip(samples.astype(np.float32), 16_000)
        write_wav(tmp_path / "voices" / f"{number}.wav", audio)
    folders = [tmp_path / "corpus"], tmp_path / "voices"
    return model, read_recordings(model, SPEC, *folders, Whisper(), LevelPrior(), 0.5)


def test_student_learns_lip_motion_and_leaves_rendering_unchanged(recordings):
    model, (clips, weights) = recordings
    assert weights.sum() == pytest.approx(1)
    assert [clip.faces is None for clip in clips] == [False, False, True, True]
    quick = {"batch_size": 4, "num_frames": 40, "token_weight": 0.0, "feature_weight": 0.01}
    options = DistillationOptions(num_iterations=60, lr=1e-2, **quick)
    torch.nn.init.normal_(model.lip_head.weight, std=0.5)
    student = distil_lip_prior(model, SPEC, clips, weights, options)
    changed = {
        name.split(".")[0]
        for name, value in student.state_dict().items()
        if not torch.equal(value, model.state_dict()[name])
    }
    assert changed == {"audio_encoder", "transformer"}
    assert lip_error(student, clips[2]) < 0.8 * lip_error(model, clips[2])


def test_training_is_deterministic(recordings):
    model, (clips, weights) = recordings
    options = DistillationOptions(num_iterations=3, batch_size=2, num_frames=20)
    first, second = (distil_lip_prior(model, SPEC, clips, weights, options) for _ in range(2))
    assert torch.equal(first.transformer.norm.weight, second.transformer.norm.weight)


def test_missing_voices_are_refused(recordings, tmp_path):
    model, _ = recordings
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="0 files"):
        read_recordings(
            model, SPEC, [tmp_path / "corpus"], tmp_path / "empty", Whisper(), LevelPrior(), 0.5
        )
