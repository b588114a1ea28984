"""The sync expert's losses, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_training import EXPERT, SPEC

from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.manifest import Manifest
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.errors import CheckpointError, CorpusError, UsageError
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.models.checkpoint import EXPERT as EXPERT_KEY
from talkinghead.models.checkpoint import default_checkpoint, load_expert, save_release
from talkinghead.training.modules.lipsync_gan import LipSyncGANModule
from talkinghead.training.modules.sync_expert_module import SyncExpertModule
from talkinghead.training.training_run import build_trainer, train
from talkinghead.types import AVSpec

TRAINER = {
    "accelerator": "cpu",
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    make_synthetic_corpus(tmp_path, SPEC, num_speakers=1, clips_per_speaker=3, seconds=1.6)
    return tmp_path


def make_module(**options: Any) -> SyncExpertModule:
    torch.manual_seed(0)
    expert = {**EXPERT, **options.pop("sync_expert", {})}
    optimizer = {"lr": 3e-3, "warmup_iterations": 2}
    return SyncExpertModule(SPEC, expert, optimizer, **{"max_iterations": 2, **options})


def make_batch(num_clips: int = 4, num_frames: int = 10) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mouths = torch.rand(num_clips, num_frames, 3, 48, 48, generator=generator)
    return {
        "mouths": mouths,
        "mean_mouth": mouths.mean(1),
        "mel": torch.randn(num_clips, num_frames, 80, 16, generator=generator),
    }


def fit(corpus: Path, module: SyncExpertModule, num_frames: int = 10) -> None:
    data = LipSyncDataModule(
        corpus, SPEC, 2, 0, iterations_per_epoch=2, **module.window, num_frames=num_frames
    )
    train(module, data, build_trainer(TRAINER, [], []))


@pytest.mark.parametrize("loss", ["info_nce", "bce"])
@pytest.mark.parametrize("num_frames", [5, 8])
def test_one_batch_is_learned(loss: Any, num_frames: int) -> None:
    module = make_module(loss=loss, sync_expert={"num_frames": num_frames})
    batch = make_batch(num_frames=2 * num_frames)
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for _ in range(60):
        value, measured = module._loss(batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert measured["chance"] == pytest.approx(math.log(8 if loss == "info_nce" else 2))
    assert value < 0.5 * measured["chance"]
    assert loss == "bce" or measured["accuracy"] == 1


@pytest.mark.parametrize("loss", ["info_nce", "bce"])
def test_windows_that_are_silent_alike_are_no_negatives(loss: Any) -> None:
    """With everything silent there is nothing to tell apart, and no gradient that says there is."""
    module, batch = make_module(loss=loss), make_batch()
    batch["mel"].fill_(MEL_SILENCE)
    value, measured = module._loss(batch)
    assert measured["silent"] == 1
    if loss == "info_nce":
        assert value == measured["chance"] == 0
    else:
        video, audio = module.sync_expert(*module._windows(batch))
        cosine = (video * audio).sum(1)
        expected = torch.nn.functional.softplus(-module.sync_expert.scale * (cosine - 0.5)).mean()
        torch.testing.assert_close(value, expected)


def test_an_unknown_loss_and_a_short_stretch_are_refused() -> None:
    with pytest.raises(UsageError, match="loss=triplet: choose info_nce or bce"):
        make_module(loss="triplet")
    module = make_module(sync_expert={"num_frames": 16})
    with pytest.raises(UsageError, match=r"data\.num_frames=10 is shorter than a window"):
        module._loss(make_batch())


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_refused_before_the_first_step(corpus: Path, split: str) -> None:
    manifest = Manifest.load(corpus)
    moved = tuple(replace(c, split="test") if c.split == split else c for c in manifest.clips)
    replace(manifest, clips=moved).save(corpus)
    module = make_module()
    with pytest.raises(CorpusError, match=f"no clip of 10 frames or more in split {split}"):
        fit(corpus, module)
    assert module.iteration == 0


def test_a_foreign_file_is_no_expert(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.ckpt does not exist"):
        load_expert(tmp_path / "gone.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="another program's"):
        load_expert(tmp_path / "other.ckpt")


def make_gan(sync_expert: Path) -> LipSyncGANModule:
    generator = {
        "dim": 16,
        "audio_channels": [4, 4, 4, 8],
        "face_encoder": "small",
        "num_layers": 1,
        "num_heads": 2,
        "decoder_channels": [8, 8, 8, 8],
        "context_channels": [4, 4, 4, 4],
    }
    discriminator = {"channels": [4, 4, 4, 4]}
    loss = {"weights": {"l1": 1.0, "sync": 0.1}}
    return LipSyncGANModule(
        AVSpec(), generator, discriminator, loss, {}, {}, sync_expert=str(sync_expert)
    )


def test_the_generator_refuses_what_is_no_expert_of_its_spec(tmp_path: Path) -> None:
    other = {EXPERT_KEY: EXPERT, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "nothing"}
    save_release(tmp_path / "o.safetensors", EXPERT_KEY, make_module().sync_expert, other)
    for path, message in (
        (tmp_path / "o.safetensors", r"made for another AVSpec \(.*face_size"),
        (default_checkpoint(), "holds no sync_expert"),
        (tmp_path / "gone.ckpt", "does not exist"),
    ):
        with pytest.raises(CheckpointError, match=message):
            make_gan(path)
