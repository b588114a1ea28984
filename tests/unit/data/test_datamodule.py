"""Tests of the data modules."""

import os
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from torch.utils.data import Dataset

from talkinghead.data.datamodule import LipSyncDataModule, SyntheticDataModule
from talkinghead.data.manifest import Manifest
from talkinghead.errors import CorpusError, UsageError
from talkinghead.types import AVSpec

SPEC = AVSpec()


class Recorder(LightningModule):
    """A LightningModule that records its batches."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.train_batches = []
        self.val_batches = []

    def training_step(self, batch):
        self.train_batches.append(batch)
        return self.weight.sum()

    def validation_step(self, batch):
        self.val_batches.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(corpus, tmp_path, max_steps, ckpt_path=None, num_workers=0):
    options = {"batch_size": 2, "num_frames": 2, "iterations_per_epoch": 3, "val_windows": 4}
    augmentation = {"rotation": 10.0, "mel_noise": 1.0}
    datamodule = LipSyncDataModule(corpus, SPEC, augmentation, num_workers=num_workers, **options)
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(accelerator="cpu", max_steps=max_steps, default_root_dir=tmp_path, **quiet)
    model = Recorder()
    trainer.fit(model, datamodule, ckpt_path=ckpt_path, weights_only=True)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return model, datamodule


def arrays(batch):
    return {key: np.asarray(value) for key, value in batch.items()}


def test_training_counts_iterations_and_validation_is_not_augmented(corpus, tmp_path):
    model, datamodule = fit(corpus, tmp_path, 5)
    assert datamodule.iteration == 5
    assert torch.cat([b["index"] for b in model.train_batches]).tolist() == list(range(10))
    batch = model.train_batches[0]
    assert batch["masked_face"].shape == (2, 2, 3, 128, 128)
    assert batch["lips"].shape == (2, 20, 20, 2)
    assert batch["mel"].shape == batch["mel_negative"].shape == (2, 20, 80, 16)
    # The sanity check and the first epoch validate the same windows.
    np.testing.assert_equal(arrays(model.val_batches[0]), arrays(model.val_batches[2]))
    fractions = [(b["reference_face"] * 255).frac() for b in (model.val_batches[0], batch)]
    assert [bool((f.minimum(1 - f) < 1e-3).all()) for f in fractions] == [True, False]


def test_opencv_threads_do_not_block_loader_processes(corpus):
    """Forked processes inherit the thread pool of OpenCV, but not the threads."""
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (9, 9), 2)
    datamodule = LipSyncDataModule(corpus, num_frames=2, num_workers=1, batch_size=2)
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()
    loader.timeout = 120
    assert next(iter(loader))["faces"].shape == (2, 2, 3, 256, 256)


@pytest.mark.parametrize(
    "stop", [3, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (2, 4))]
)
def test_resumed_batches_equal_uninterrupted_ones(corpus, tmp_path, stop, recwarn):
    """Interrupt in an epoch, at the end of an epoch and in the next one; also with workers."""
    whole, _ = fit(corpus, tmp_path, 7)
    first, _ = fit(corpus, tmp_path, stop, num_workers=2)
    rest, datamodule = fit(corpus, tmp_path, 7, tmp_path / "last.ckpt", num_workers=1)
    assert datamodule.iteration == 7
    resumed = first.train_batches + rest.train_batches
    np.testing.assert_equal([*map(arrays, resumed)], [*map(arrays, whole.train_batches)])
    assert not [w for w in recwarn if "not resumable" in str(w.message)]


@pytest.mark.skipif(not hasattr(os, "getpgrp"), reason="needs process groups")
def test_workers_do_not_receive_signals_to_the_process_group(corpus):
    class Groups(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return os.getpgrp()

    data = LipSyncDataModule(corpus, SPEC, num_workers=1, batch_size=1)
    (group,) = data._loader(Groups())
    assert int(group) != os.getpgrp()


def test_unusable_corpora_and_options_are_refused(corpus, tmp_path):
    with pytest.raises(CorpusError, match="mouth_side: 144 != 128"):
        LipSyncDataModule(corpus, {"mouth_side": 128}).setup("fit")
    with pytest.raises(CorpusError, match="not a prepared corpus"):
        LipSyncDataModule(tmp_path).setup("fit")
    with pytest.raises(UsageError, match="augmentation has no blur"):
        LipSyncDataModule(corpus, augmentation={"blur": 1.0})


@pytest.mark.parametrize(("split", "num_clips"), [("train", 1), ("val", 1), ("train", 2)])
def test_corpus_with_one_split_is_trained_and_validated_on_with_a_warning(
    corpus, tmp_path, caplog, split, num_clips
):
    manifest = Manifest.load(corpus)
    clips = tuple(replace(clip, split=split) for clip in manifest.split("train")[:num_clips])
    replace(manifest, clips=clips).save(tmp_path)
    (tmp_path / "clips").symlink_to(corpus / "clips")
    model, _ = fit(tmp_path, tmp_path, 1)
    used = set(model.train_batches[0]["clip"] + model.val_batches[0]["clip"])
    assert used == {clip.id for clip in clips}
    assert "the same clips are used for training and for validation" in caplog.text


def test_validation_splits_previews_and_batches_of_mouths_only(corpus):
    options = {"val_splits": ["val", "test"], "val_windows": 4, "num_frames": 2, "num_workers": 0}
    datamodule = LipSyncDataModule(corpus, mouths_only=True, **options)
    datamodule.setup("validate")
    loaders = datamodule.val_dataloader()
    assert [len(loader.dataset) for loader in loaders] == [4, 4]
    batch = datamodule.on_after_batch_transfer(next(iter(loaders[0])), 0)
    assert batch["mouths"].shape == (4, 2, 3, 96, 96)
    assert "reference_face" not in batch
    assert {clip.split for clip in datamodule.test_dataloader().dataset.clips} == {"test"}
    batch = datamodule.preview_batch(3, num_frames=90)
    assert batch["faces"].shape[:2] == (3, 50)
    assert batch["audio"].shape == (3, 32_000)
    assert batch["audio"].abs().max() > 0.01
    assert datamodule.preview_batch(1)["audio"].shape == (1, 2 * 640)


def test_synthetic_corpus_is_generated_once_per_spec_and_size(tmp_path):
    first = {"num_speakers": 1, "clips_per_speaker": 4, "seconds": 0.2, "num_workers": 0}
    times_ns = []
    for changes in (
        *({}, {}, {"av": {"fmin": 80.0}}, {"seconds": 0.4}),
        {"num_speakers": 2, "clips_per_speaker": 2},
    ):
        SyntheticDataModule(tmp_path / "c", **{**first, **changes}).prepare_data()
        times_ns.append((tmp_path / "c" / "manifest.json").stat().st_mtime_ns)
    assert times_ns[0] == times_ns[1] < times_ns[2] < times_ns[3] < times_ns[4]
    assert {clip.speaker for clip in Manifest.load(tmp_path / "c").clips} == {
        "cartoon0",
        "cartoon1",
    }
