"""Adversarial, landmark, identity and reconstruction losses, and their weight schedules."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v3_large

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.errors import UsageError
from talkinghead.features.faces.alignment import as_tensor, mouth_crop
from talkinghead.losses.adversarial_loss import AdversarialLoss, feature_matching, gradient_penalty
from talkinghead.losses.generator_loss import (
    GeneratorLoss,
    IdentityLoss,
    LandmarkLoss,
    build_schedule,
)
from talkinghead.losses.reconstruction_loss import ReconstructionLoss
from talkinghead.models.discriminator import Discriminator

RAMP = {"kind": "linear", "start": 0.0, "end": 0.4, "start_iteration": 100, "end_iteration": 200}


def test_adversarial_losses_have_expected_values_for_known_logits() -> None:
    real, fake = [torch.tensor([0.5, 2.0])], [torch.tensor([-3.0, 0.0])]
    off = [math.log1p(math.exp(x)) for x in (-3.5, -2.0)]
    expected: dict[Any, tuple[float, float]] = {
        "hinge": (0.5 * (0.25 + 0.5), 1.5),
        "least_squares": (0.5 * (0.625 + 4.5), (16 + 1) / 2),
        "relativistic": (sum(off) / 2, sum(off) / 2 + 5.5 / 2),
    }
    for kind, values in expected.items():
        loss = AdversarialLoss(kind)
        found = float(loss.discriminator(real, fake)), float(loss.generator(fake, real))
        assert found == pytest.approx(values)
    scales = [torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 2, 2)]
    assert float(AdversarialLoss("hinge").generator(scales, scales)) == pytest.approx(-0.5)


def test_gradient_penalty_is_the_squared_gradient_of_a_logit() -> None:
    images = [torch.rand(3, 1, 2, 2, requires_grad=True) for _ in range(2)]
    slopes = [torch.tensor([[1.0, 2.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.0]])]
    logits = [(p * s).sum((2, 3), keepdim=True) for p, s in zip(images, slopes, strict=True)]
    assert gradient_penalty(logits, images).item() == pytest.approx(9)
    assert gradient_penalty(logits[:1], images).item() == pytest.approx(9)


def test_discriminator_ignores_lighting_and_colour() -> None:
    network, image = Discriminator([8, 8]), torch.rand(2, 3, 24, 24)
    tinted = image + torch.tensor([0.2, -0.1, 0.0]).view(3, 1, 1)
    torch.testing.assert_close(network(tinted, tinted)[0], network(image, image)[0])


def test_feature_matching_has_gradients_for_fake_only() -> None:
    fake = [torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 5, requires_grad=True)]
    real = [torch.ones(2, 3, requires_grad=True), torch.full((2, 5), 3.0)]
    value = feature_matching(fake, real)
    assert value.item() == pytest.approx(2)
    value.backward()
    assert fake[0].grad is not None
    assert real[0].grad is None


def test_landmark_loss_grows_with_displacement_and_has_image_gradients() -> None:
    loss = LandmarkLoss()
    target = torch.zeros(2, 3, 3, 96, 96)
    target[..., 40:56, 30:66] = 1
    assert loss(target, target) < 0.02
    predicted = target.roll(6, dims=-1).requires_grad_()
    value = loss(predicted, target)
    assert value > 0.5
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


def test_identity_loss_is_zero_for_the_same_face_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(mobilenet_v3_large().state_dict(), tmp_path / "net.pth")
    loss = IdentityLoss("mobilenet_v3", str(tmp_path / "net.pth"))
    loss.train()
    face, other = torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128, requires_grad=True)
    assert loss(face, face).abs() < 1e-5
    value = loss(other, face)
    assert value > 1e-5
    value.backward()
    assert other.grad is not None
    assert other.grad.abs().max() > 0


def test_errors_on_the_lips_and_blurred_edges_have_higher_weights() -> None:
    loss = ReconstructionLoss()
    target = torch.rand(2, 3, 3, 96, 96) * 0.5
    terms = loss(target + 0.1, target)
    assert float(terms["l1"]) == pytest.approx(0.1, abs=1e-5)
    assert float(terms["gradient"]) == pytest.approx(0, abs=1e-5)
    target = torch.zeros(1, 3, 96, 96)
    lips, corner, stripes = target.clone(), target.clone(), target.clone()
    lips[..., 40:48, 44:52] = corner[..., 4:12, 4:12] = stripes[..., ::8] = 1
    assert loss(lips, target)["l1"] > 2 * loss(corner, target)["l1"]
    blurred = loss(torch.nn.functional.avg_pool2d(stripes, 9, 1, 4), stripes)
    assert blurred["gradient"] > blurred["l1"]
    half = loss(torch.ones(1, 3, 48, 48), torch.zeros(1, 3, 48, 48))
    assert float(half["l1"]) == pytest.approx(1, abs=0.01)


def test_motion_gain_increases_the_weights_of_moving_pixels() -> None:
    loss = ReconstructionLoss(motion_gain=10)
    mean = torch.full((1, 3, 96, 96), 0.5)
    moved = mean[:, None].repeat(1, 2, 1, 1, 1)
    assert bool((loss.motion_weights(moved, mean) == 1).all())
    moved[..., 40:56, 40:56] = 0.1
    weights = loss.motion_weights(moved, mean)
    assert weights.shape == (1, 2, 1, 96, 96)
    assert weights[0, 0, 0, [48, 10], [48, 10]].tolist() == pytest.approx([5, 1], abs=1e-4)
    plain = loss(moved + 0.1, moved)["l1"]
    assert float(loss(moved + 0.1, moved, weights)["l1"]) > 1.2 * float(plain)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (0.3, {0: 0.3, 10_000: 0.3}),
        (RAMP, {0: 0.0, 100: 0.0, 150: 0.2, 200: 0.4, 999: 0.4}),
        ({**RAMP, "end_iteration": 100}, {99: 0.0, 100: 0.4}),
    ],
)
def test_constant_and_linear_schedules(config: Any, expected: dict[int, float]) -> None:
    schedule = build_schedule(config)
    assert {i: schedule(i) for i in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AdversarialLoss("wasserstein"), "hinge, least_squares, relativistic"),  # type: ignore[arg-type]
        (lambda: GeneratorLoss(96, {"l3": 1.0}), "no l3; it has l1"),
        (lambda: ReconstructionLoss(peak=0.5), "peak >= 1"),
        (lambda: ReconstructionLoss(motion_gain=-1), "motion_gain must be >= 0"),
        (lambda: build_schedule({"kind": "cosine"}), "kind must be linear"),
        (lambda: build_schedule({**RAMP, "speed": 1}), "speed"),
        (lambda: build_schedule({**RAMP, "end_iteration": 50}), "start_iteration"),
        (lambda: build_schedule("0.3"), "number or a mapping"),  # type: ignore[arg-type]
    ],
)
def test_invalid_options_are_refused(build: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build()
