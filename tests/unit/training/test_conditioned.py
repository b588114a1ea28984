"""Training with conditioning on emotion and head pose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_training import GENERATOR, fit, make_data, make_module
from safetensors.numpy import load_file, save_file

from talkinghead.data.manifest import Manifest
from talkinghead.errors import CheckpointError, CorpusError
from talkinghead.models.checkpoint import load_generator

CONDITIONED = {**GENERATOR, "emotions": ["calm", "angry"], "head_pose": True}


@pytest.fixture
def labelled(corpus: Path, tmp_path: Path) -> Path:
    """Return a corpus with one calm and one angry speaker."""
    manifest = Manifest.load(corpus)
    labels = {"cartoon0": "calm", "cartoon1": "angry"}
    clips = tuple(replace(clip, emotion=labels[clip.speaker]) for clip in manifest.clips)
    replace(manifest, clips=clips).save(tmp_path / "labelled")
    (tmp_path / "labelled" / "clips").symlink_to(corpus / "clips")
    return tmp_path / "labelled"


@pytest.mark.slow
def test_conditioning_is_learnt_from_unconditioned_weights(labelled: Path, tmp_path: Path) -> None:
    plain = make_module(max_iterations=1)
    fit(plain, make_data(labelled, plain)).save_checkpoint(tmp_path / "plain.ckpt")
    start = str(tmp_path / "plain.ckpt")
    module = make_module(generator=CONDITIONED, init_from=start, max_iterations=3)
    name = "decoder.stages.0.conv1.weight"
    assert torch.equal(module.generator.get_parameter(name), plain.ema.network.get_parameter(name))
    data = make_data(labelled, module, batch_size=4)
    batch = data.preview_batch(2)
    assert (batch["emotion"].tolist(), batch["head_turn"].shape) == ([0, 1], (2, 5, 3))
    trainer = fit(module, data)
    trainer.save_checkpoint(tmp_path / "conditioned.ckpt")
    loaded: Any = load_generator(tmp_path / "conditioned.ckpt").model
    assert loaded.emotion.names == ["calm", "angry"]
    assert loaded.emotion.table.weight.abs().sum(1).min() > 0
    assert loaded.pose.layers[-1].bias.abs().max() > 0
    # An unconditioned generator cannot hold these weights.
    with pytest.raises(CheckpointError, match="holds another generator"):
        make_module(init_from=str(tmp_path / "conditioned.ckpt"))


def test_a_corpus_without_labels_is_refused(corpus: Path) -> None:
    module = make_module(generator={**GENERATOR, "emotions": ["calm"]})
    with pytest.raises(CorpusError, match=r"emotions is calm, but 2 of 2 clips .* None"):
        fit(module, make_data(corpus, module))


def test_a_corpus_without_head_poses_is_refused(labelled: Path) -> None:
    module = make_module(generator=CONDITIONED)
    path = labelled / Manifest.load(labelled).split("train")[0].path
    tensors = load_file(path)
    del tensors["head_pose"]
    (labelled / "clips").unlink()
    path.parent.mkdir(parents=True)
    save_file(tensors, path)
    with pytest.raises(CorpusError, match=r"clip0\.safetensors has no head_pose: .* again"):
        fit(module, make_data(labelled, module))
