"""Adversarial losses, gradient penalty and feature matching."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from talkinghead.errors import UsageError
from talkinghead.losses.adversarial_loss import AdversarialLoss, feature_matching, gradient_penalty
from talkinghead.models.discriminator import Discriminator


@pytest.mark.parametrize("kind", ["hinge", "least_squares", "relativistic"])
def test_each_side_has_a_lower_loss_when_it_is_right(kind: str) -> None:
    loss = AdversarialLoss(kind)
    high, low = torch.full((2, 1, 4, 4), 1.0), torch.full((2, 1, 4, 4), -1.0)
    assert loss.discriminator(high, low) < loss.discriminator(low, high)
    assert loss.generator(high, low) < loss.generator(low, high)


def test_losses_of_known_logits() -> None:
    real, fake = torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 0.0])
    hinge, squares = AdversarialLoss("hinge"), AdversarialLoss("least_squares")
    assert float(hinge.discriminator(real, fake)) == pytest.approx(0.5 * (0.25 + 0.5))
    assert float(hinge.generator(fake, real)) == pytest.approx(1.5)
    assert float(squares.discriminator(real, fake)) == pytest.approx(0.5 * (0.625 + 4.5))
    assert float(squares.generator(fake, real)) == pytest.approx((16 + 1) / 2)
    pairs = AdversarialLoss("relativistic")
    off = [math.log1p(math.exp(x)) for x in (-3.5, -2.0)]
    assert float(pairs.discriminator(real, fake)) == pytest.approx(sum(off) / 2)
    assert float(pairs.generator(fake, real)) == pytest.approx(sum(off) / 2 + 5.5 / 2)


def test_scales_are_averaged() -> None:
    loss = AdversarialLoss("hinge")
    scales = [torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 2, 2)]
    assert float(loss.generator(scales, scales)) == pytest.approx(-0.5)


def test_penalty_is_the_squared_gradient_of_a_logit() -> None:
    images = [torch.rand(3, 1, 2, 2, requires_grad=True) for _ in range(2)]
    slopes = [torch.tensor([[1.0, 2.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.0]])]
    logits = [(p * s).sum((2, 3), keepdim=True) for p, s in zip(images, slopes, strict=True)]
    assert gradient_penalty(logits, images).item() == pytest.approx(9)
    assert gradient_penalty(logits[:1], images).item() == pytest.approx(9)
    assert gradient_penalty(logits[1:], images[1:]).item() == pytest.approx(9)


def test_discriminator_detects_blur_within_40_iterations() -> None:
    """Independent of lighting and colour, and despite the gradient penalty."""
    torch.manual_seed(0)
    network, loss = Discriminator([16, 32]), AdversarialLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)

    def image_pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
        texture = torch.rand(16, 3, 24, 24) * 0.2 + torch.rand(16, 3, 1, 1) * 0.8
        both = (texture, 0.7 * texture + 0.3 * F.avg_pool2d(texture, 3, 1, 1))
        return [(p.requires_grad_(), p) for p in both]

    for _ in range(40):
        real, fake = image_pairs()
        real_logits, fake_logits = network(*real)[0], network(*fake)[0]
        steep = gradient_penalty(real_logits, real) + gradient_penalty(fake_logits, fake)
        optimizer.zero_grad()
        (loss.discriminator(real_logits, fake_logits) + 1e-4 * steep).backward()
        optimizer.step()
    real, fake = image_pairs()
    detected = network(*real)[0][0] > network(*fake)[0][0]
    assert detected.float().mean() > 0.9


def test_feature_matching_has_gradients_for_fake_only() -> None:
    fake = [torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 5, requires_grad=True)]
    real = [torch.ones(2, 3, requires_grad=True), torch.full((2, 5), 3.0)]
    value = feature_matching(fake, real)
    assert value.item() == pytest.approx(2)
    value.backward()
    assert fake[0].grad is not None
    assert real[0].grad is None


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="hinge, least_squares, relativistic"):
        AdversarialLoss("wasserstein")  # type: ignore[arg-type]
