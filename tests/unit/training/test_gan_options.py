"""Tests of the options for training the generator: speed, sync discriminator, conditioning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_training import (
    EXPERT,
    GENERATOR,
    SPEC,
    fit,
    generator_inputs,
    make_data,
    make_module,
)
from safetensors.numpy import load_file, save_file

from talkinghead.data.manifest import Manifest
from talkinghead.errors import CheckpointError, CorpusError, DependencyError, UsageError
from talkinghead.models.checkpoint import build, default_checkpoint, load_generator, save_release
from talkinghead.training.gan_options import SpeedOptions

CONDITIONED = {**GENERATOR, "emotions": ["calm", "angry"], "head_pose": True}


def run_forward(options: SpeedOptions) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model: Any = build("generator", GENERATOR, SPEC)
    options.apply(model)
    return model, model(*generator_inputs(model))


def gradients(options: SpeedOptions) -> dict[str, torch.Tensor]:
    model, output = run_forward(options)
    (output.mouth.square().mean() + output.motion.square().mean()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "options",
    [
        {"channels_last": True},
        {"checkpoint_activations": True},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_gradients_are_unchanged(options: dict[str, bool]) -> None:
    plain, accelerated = gradients(SpeedOptions()), gradients(SpeedOptions(**options))
    assert plain.keys() == accelerated.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(accelerated[name], gradient, atol=1e-6, rtol=1e-3)


def test_checkpointed_activations_are_not_stored() -> None:
    def count_saved(options: SpeedOptions) -> int:
        sizes: list[int] = []

        def count(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            run_forward(options)
        return sum(sizes)

    recomputed = count_saved(SpeedOptions(checkpoint_activations=True))
    assert recomputed < 0.7 * count_saved(SpeedOptions())


def test_compile_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(DependencyError, match=r"apt install g\+\+"):
        SpeedOptions(compile=True).apply(build("generator", GENERATOR, SPEC))


def test_sync_discriminator_may_use_a_part_of_the_audio_features(corpus: Path) -> None:
    def joint_module(generator: list[str], sync: list[str]) -> Any:
        return make_module(
            generator={**GENERATOR, "audio_features": generator},
            sync_discriminator="joint",
            sync_arguments={**EXPERT, "audio_features": sync},
            loss={"weights": {"l1": 1.0, "sync": 1.0}},
            max_iterations=1,
        )

    with pytest.raises(UsageError, match="needs the audio features prosody, which the generator"):
        joint_module(["mfcc"], ["mel", "prosody"])
    module = joint_module(["prosody", "mfcc"], ["mel"])
    trainer = fit(module, make_data(corpus, module))
    assert trainer.callback_metrics["train/generator/sync"] > 0


def test_unusable_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sync_discriminator=thawed: choose frozen or joint"):
        make_module(sync_discriminator="thawed")
    with pytest.raises(CheckpointError, match="holds no sync_expert"):
        make_module(sync_expert=str(default_checkpoint()))
    other = replace(SPEC, fmin=60.0)
    meta = {"sync_expert": EXPERT, "av": other.to_dict(), "license": "MIT", "trained_on": "nothing"}
    path = tmp_path / "other.safetensors"
    save_release(path, "sync_expert", build("sync_expert", EXPERT, other), meta)
    with pytest.raises(CheckpointError, match=r"another AVSpec \(fmin: 60.0 != 55.0.*: train one"):
        make_module(sync_expert=str(path))


def test_sync_expert_for_another_mask_is_accepted(tmp_path: Path) -> None:
    other = replace(SPEC, mask_top=SPEC.mouth_y)
    meta = {"sync_expert": EXPERT, "av": other.to_dict(), "license": "MIT", "trained_on": "nothing"}
    path = tmp_path / "other.safetensors"
    save_release(path, "sync_expert", build("sync_expert", EXPERT, other), meta)
    assert make_module(sync_expert=str(path)).spec.mask_top == SPEC.mask_top


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
def test_conditioned_training_starts_from_unconditioned_weights(
    labelled: Path, tmp_path: Path
) -> None:
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
    # A generator without conditioning has no parameters for these weights.
    with pytest.raises(CheckpointError, match="holds another generator"):
        make_module(init_from=str(tmp_path / "conditioned.ckpt"))


def test_corpus_without_labels_or_head_poses_is_refused(corpus: Path, labelled: Path) -> None:
    module = make_module(generator=CONDITIONED)
    with pytest.raises(CorpusError, match=r"emotions is calm, angry, but 2 of 2 clips .* None"):
        fit(module, make_data(corpus, module))
    path = labelled / Manifest.load(labelled).split("train")[0].path
    tensors = load_file(path)
    del tensors["head_pose"]
    (labelled / "clips").unlink()
    path.parent.mkdir(parents=True)
    save_file(tensors, path)
    with pytest.raises(CorpusError, match=r"clip0\.safetensors has no head_pose: .* again"):
        fit(module, make_data(labelled, module))
