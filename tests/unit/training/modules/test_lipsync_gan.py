"""Tests of training the generator: resuming, accumulation, frozen networks and checkpoints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from helpers.tiny_training import EXPERT, GENERATOR, OPTIMIZER, SPEC, fit, make_data, make_module
from lightning.pytorch.callbacks import Callback

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.features.faces.alignment import mouth_crop
from talkinghead.models.checkpoint import load_expert, load_generator
from talkinghead.training.callbacks.last_checkpoint import LastCheckpoint
from talkinghead.training.modules.lip_regressor_module import LipRegressorModule
from talkinghead.training.modules.lipsync_gan import LipSyncGANModule
from talkinghead.training.modules.sync_expert_module import SyncExpertModule

INPUTS = ("reference_face", "reference_lips", "masked_face", "mel")
FULL_GAN = {
    "generator": {**GENERATOR, "dropout": 0.1},
    "loss": {"weights": {"l1": 1.0, "sync": 0.1, "adversarial": 0.1, "feature_matching": 0.1}},
    "discriminator": {"channels": [4, 8, 8, 8], "face_channels": [4, 8, 8]},
    "sync_discriminator": "joint",
    "sync_arguments": EXPERT,
}


class Recorder(Callback):
    """A callback that records the sum of all weights after every batch."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.norms.append(sum(p.double().sum().item() for p in pl_module.parameters()))


class StopAfter(Callback):
    """A callback that saves a checkpoint and ends the run after a given iteration."""

    def __init__(self, iteration: int, path: Path) -> None:
        self.iteration, self.path = iteration, path

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if pl_module.iteration == self.iteration:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


# A quicker test of an exact continuation is in test_last_checkpoint.py.
@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 3], ids=["end of epoch", "mid-epoch"])
def test_resumed_training_equals_uninterrupted(corpus: Path, tmp_path: Path, stop: int) -> None:
    def run(callbacks: list[Callback], **resume: str) -> LipSyncGANModule:
        module = make_module(**FULL_GAN, max_iterations=4)
        fit(module, make_data(corpus, module), *callbacks, **resume)
        return module

    whole, first, second = Recorder(), Recorder(), Recorder()
    module, initial = run([whole]), make_module(**FULL_GAN).state_dict()
    moved = {n.split(".")[0] for n, p in module.named_parameters() if not p.equal(initial[n])}
    assert {"generator", "ema", "discriminator", "sync"} <= moved
    run([first, StopAfter(stop, tmp_path / "stopped.ckpt")])
    torch.manual_seed(99)
    assert run([second], ckpt_path=str(tmp_path / "stopped.ckpt")).iteration == 4
    assert [*first.norms[:stop], *second.norms] == pytest.approx(whole.norms, abs=0, rel=1e-12)


def test_accumulated_batches_equal_one_large_batch(corpus: Path) -> None:
    class Gradients(Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            named = module.generator.named_parameters()
            steps.append({n: p.grad.clone() for n, p in named if p.grad is not None})

    gradients = []
    for accumulate, batch_size in ((1, 4), (2, 2)):
        steps: list[dict[str, torch.Tensor]] = []
        module = make_module(accumulate=accumulate, max_iterations=accumulate)
        data = make_data(corpus, module, augmentation=None, batch_size=batch_size)
        fit(module, data, Gradients())
        assert (module.iteration, len(steps)) == (accumulate, 1)
        gradients.append(steps[0])
    assert gradients[0].keys() == gradients[1].keys()
    # The gradient of L1 is discontinuous at 0, so rounding may change single values.
    whole, halves = (torch.cat([g.flatten() for g in step.values()]) for step in gradients)
    assert (halves - whole).norm() < 0.02 * whole.norm()


def test_accumulation_of_two_optimizers_is_refused_with_scaled_losses() -> None:
    weights = {"l1": 1.0, "adversarial": 0.1}
    joint = {"sync_discriminator": "joint", "sync_arguments": EXPERT}
    for options in ({"loss": {"weights": weights}}, joint):
        module: Any = make_module(**options, accumulate=2)
        module._trainer = SimpleNamespace(precision="16-mixed")
        with pytest.raises(UsageError, match=r"model\.accumulate=2 .* or 32-true"):
            module.configure_optimizers()
    module = make_module(accumulate=2)
    module._trainer = SimpleNamespace(precision="16-mixed")
    assert len(module.configure_optimizers()) == 2


@pytest.mark.slow
def test_lip_regressor_learns_and_serves_as_landmark_loss(corpus: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    optimizer = {"lr": 5e-3, "warmup_iterations": 0}
    module = LipRegressorModule(SPEC, {"channels": [8, 8, 16]}, optimizer, max_iterations=30)
    no_geometry = dict.fromkeys(("flip", "rotation", "scale", "shift", "elastic"), 0.0)
    distances: list[float] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            distances.append(float(trainer.callback_metrics["train/lips/distance_px"]))

    data = make_data(corpus, module, augmentation=no_geometry, batch_size=4)
    fit(module, data, Watch()).save_checkpoint(tmp_path / "lips.ckpt")
    assert distances[-1] < 0.5 * distances[0]
    weights = {"l1": 1.0, "landmark": 0.1}
    loss = {"weights": weights, "landmark": {"checkpoint": str(tmp_path / "lips.ckpt")}}
    gan = make_module(loss=loss, max_iterations=1)
    trainer = fit(gan, make_data(corpus, gan))
    assert trainer.callback_metrics["train/generator/landmark"] > 0
    trainer.save_checkpoint(tmp_path / "gan.ckpt")
    state = torch.load(tmp_path / "gan.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in state if name.startswith("losses.")]
    resumed = make_module(loss=loss, max_iterations=2)
    fit(resumed, make_data(corpus, resumed), ckpt_path=str(tmp_path / "gan.ckpt"))
    assert resumed.iteration == 2


def test_sync_expert_is_frozen_and_not_in_the_checkpoint(corpus: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = SyncExpertModule(SPEC, EXPERT, OPTIMIZER, max_iterations=2, license="MIT")
    data = make_data(corpus, module, num_frames=10)
    trainer = fit(module, data)
    assert torch.isfinite(trainer.callback_metrics["val/loss"])
    path = tmp_path / "expert.ckpt"
    trainer.save_checkpoint(path)
    expert = load_expert(path).model.state_dict()
    gan = make_module(
        loss={"weights": {"l1": 1.0, "sync": 1.0}}, sync_expert=str(path), max_iterations=2
    )
    trainer = fit(gan, make_data(corpus, gan))
    assert trainer.callback_metrics["train/generator/sync"] > 0
    for name, value in gan.sync.state_dict().items():
        assert torch.equal(value, expert[name]), name
    trainer.save_checkpoint(tmp_path / "gan.ckpt")
    state = torch.load(tmp_path / "gan.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in state if name.startswith("sync.")]


def test_sync_expert_is_validated_on_several_splits(corpus: Path) -> None:
    module = SyncExpertModule(SPEC, EXPERT, OPTIMIZER, max_iterations=1)
    metrics = fit(module, make_data(corpus, module, val_splits=("val", "test"))).callback_metrics
    assert {"val/loss", "val_test/loss", "val_test/sync_expert/accuracy"} <= metrics.keys()


def test_checkpoint_loads_without_lightning_and_initialises_training(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = make_module(loss={"weights": {"l1": 1.0, "sync": 1.0}}, trained_on="drawn faces")
    data, path = make_data(corpus, module), tmp_path / "last.ckpt"
    trainer = fit(module, data)
    assert trainer.callback_metrics["train/weight/sync"] == 0
    assert "no sync expert: the sync loss's weight is 0" in caplog.text
    trainer.save_checkpoint(path)
    loaded = load_generator(path)
    assert loaded.meta["trained_on"] == "drawn faces"
    batch = data.preview_batch(2)
    torch.testing.assert_close(batch["mouths"], mouth_crop(batch["faces"], SPEC))
    with torch.no_grad():
        mouth = loaded.model(*(batch[name] for name in INPUTS)).mouth
        torch.testing.assert_close(mouth, module.eval()(batch).mouth)
    second = make_module(init_from=str(path))
    name = "decoder.head.weight"
    assert torch.equal(second.generator.get_parameter(name), module.ema.network.get_parameter(name))
    with pytest.raises(CheckpointError, match="another generator"):
        make_module(init_from=str(path), generator={**GENERATOR, "dim": 48})
    with pytest.raises(CheckpointError, match=r"another AVSpec \(fmax: 7600\.0 != 4000\.0"):
        make_module(init_from=str(path), av={**SPEC.to_dict(), "fmax": 4000.0})


@pytest.mark.slow
def test_initial_weights_are_validated_and_compared_with_the_result(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    losses: dict[int, float] = {}

    class Watch(Callback):
        def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
            losses[pl_module.iteration] = float(trainer.callback_metrics["val/loss"])

    first = make_module(max_iterations=2)
    fit(first, make_data(corpus, first), Watch()).save_checkpoint(tmp_path / "first.ckpt")
    saved = losses[2]
    caplog.set_level("INFO")
    options = {"init_from": str(tmp_path / "first.ckpt"), "optimizer": {**OPTIMIZER, "lr": 10.0}}
    second = make_module(**options, max_iterations=2)
    trainer = fit(second, make_data(corpus, second), Watch())
    assert losses[0] == pytest.approx(saved)
    assert losses[2] > losses[0]
    assert f"val/loss: {losses[0]:.4f} before training, {losses[2]:.4f} after" in caplog.text
    assert "training did not lower val/loss" in caplog.text
    trainer.save_checkpoint(tmp_path / "second.ckpt")
    losses.clear()
    resumed = make_module(**options, max_iterations=4)
    fit(resumed, make_data(corpus, resumed), Watch(), ckpt_path=str(tmp_path / "second.ckpt"))
    assert list(losses) == [4]


def test_finished_run_is_not_trained_further(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "last.ckpt"
    written_ns = []
    for resumed in (None, str(path)):
        module = make_module(max_iterations=1)
        fit(module, make_data(corpus, module), LastCheckpoint(tmp_path), ckpt_path=resumed)
        written_ns.append(path.stat().st_mtime_ns)
    assert written_ns[0] == written_ns[1]
    assert f"{path} has reached iteration 1 of 1, so nothing is left to train" in caplog.text


def test_last_checkpoint_is_written_at_its_interval(corpus: Path, tmp_path: Path) -> None:
    seen: list[bool] = []

    class Watch(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            seen.append((tmp_path / "last.ckpt").is_file())

    # Lightning calls checkpoint callbacks last.
    for minutes, expected in ((0.0, [False, True]), (60.0, [False, False])):
        module = make_module(max_iterations=2)
        seen.clear()
        (tmp_path / "last.ckpt").unlink(missing_ok=True)
        fit(module, make_data(corpus, module), LastCheckpoint(str(tmp_path), minutes), Watch())
        assert seen == expected
        saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert saved["iteration"] == 2
