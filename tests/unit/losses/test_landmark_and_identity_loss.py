"""Losses on the output of frozen networks: lip landmarks and identity."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v3_large

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.errors import CheckpointError
from talkinghead.features.faces.alignment import as_tensor, mouth_crop
from talkinghead.losses.generator_loss import GeneratorLoss
from talkinghead.losses.identity_loss import IdentityLoss
from talkinghead.losses.landmark_loss import LandmarkLoss
from talkinghead.models.checkpoint import LIP_REGRESSOR, save_release
from talkinghead.models.lip_regressor import LipRegressor
from talkinghead.types import AVSpec


@pytest.fixture(scope="module")
def regressor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "lips.safetensors"
    arguments = {"channels": [8, 8, 16]}
    meta = {
        LIP_REGRESSOR: arguments,
        "av": AVSpec().to_dict(),
        "license": "MIT",
        "trained_on": "nothing",
    }
    save_release(path, LIP_REGRESSOR, LipRegressor(**arguments), meta | {LIP_REGRESSOR: arguments})
    return path


def test_landmark_loss_grows_with_displacement_and_has_image_gradients(
    regressor: Path,
) -> None:
    loss = LandmarkLoss(str(regressor))
    torch.manual_seed(1)
    target = torch.rand(2, 3, 3, 96, 96)
    assert loss(target, target) < 0.02
    predicted = target.roll(6, dims=-1).requires_grad_()
    value = loss(predicted, target)
    assert value > 0.02
    value.backward()
    assert predicted.grad is not None
    assert predicted.grad.abs().max() > 0
    assert all(p.grad is None for p in loss.parameters())


@pytest.mark.corpus
def test_packaged_regressor_is_accurate_on_its_corpus() -> None:
    corpus = Path(os.environ["TALKINGHEAD_CORPUS"])
    manifest = Manifest.load(corpus)
    spec, distances = manifest.spec, []
    regressor, box = LandmarkLoss().regressor, manifest.spec.mouth_box
    for clip in manifest.split("val")[:8]:
        file = ClipFile(corpus / clip.path)
        mouths = mouth_crop(as_tensor(file.faces(0, 20)), spec)
        found = regressor(mouths) * box.width + torch.tensor([box.x0, box.y0])
        lips = torch.from_numpy(file.tensor("lips")[:20])
        distances.append(float((found - lips).norm(dim=-1).nanmean()))
    assert np.mean(distances) < 2


def test_another_network_is_refused() -> None:
    from talkinghead.models.checkpoint import default_checkpoint

    with pytest.raises(CheckpointError, match="holds no lip_regressor"):
        LandmarkLoss(str(default_checkpoint("sync_expert")))


def test_identity_loss_is_zero_for_the_same_face_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(mobilenet_v3_large().state_dict(), tmp_path / "net.pth")
    loss = IdentityLoss("mobilenet_v3", str(tmp_path / "net.pth"))
    loss.train()
    face, other = torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128)
    assert loss(face, face).abs() < 1e-5
    predicted = other.clone().requires_grad_()
    value = loss(predicted, face)
    assert value > 1e-5
    value.backward()
    assert predicted.grad is not None
    assert predicted.grad.abs().max() > 0


def test_losses_are_built_only_with_a_weight(regressor: Path) -> None:
    losses = GeneratorLoss(96, {"landmark": 0.1}, landmark={"checkpoint": str(regressor)})
    assert losses.landmark is not None
    assert losses.identity is None
    assert losses.identity_term(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)) == {}
    assert GeneratorLoss(96, {"l1": 1.0}).landmark is None
