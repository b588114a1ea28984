"""Both sides of the GAN, on logits."""

from __future__ import annotations

import pytest
import torch

from talkinghead.errors import UsageError
from talkinghead.losses.adversarial import AdversarialLoss, feature_matching


@pytest.mark.parametrize("kind", ["hinge", "least_squares"])
def test_a_right_discriminator_pays_less_and_a_fooled_one_pleases_the_generator(kind: str) -> None:
    loss = AdversarialLoss(kind)
    high, low = torch.full((2, 1, 4, 4), 1.0), torch.full((2, 1, 4, 4), -1.0)
    assert loss.discriminator(high, low) < loss.discriminator(low, high)
    assert loss.generator(high) < loss.generator(low)


def test_values() -> None:
    real, fake = torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 0.0])
    hinge, squares = AdversarialLoss("hinge"), AdversarialLoss("least_squares")
    assert float(hinge.discriminator(real, fake)) == pytest.approx(0.5 * (0.25 + 0.5))
    assert float(hinge.generator(fake)) == pytest.approx(1.5)
    assert float(squares.discriminator(real, fake)) == pytest.approx(0.5 * (0.625 + 4.5))
    assert float(squares.generator(fake)) == pytest.approx((16 + 1) / 2)


def test_several_scales_are_averaged() -> None:
    loss = AdversarialLoss()
    scales = [torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 2, 2)]
    assert float(loss.generator(scales)) == pytest.approx(-0.5)


def test_feature_matching_pulls_the_fake_alone() -> None:
    fake = [torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 5, requires_grad=True)]
    real = [torch.ones(2, 3, requires_grad=True), torch.full((2, 5), 3.0)]
    value = feature_matching(fake, real)
    assert value.item() == pytest.approx(2)
    value.backward()
    assert fake[0].grad is not None
    assert real[0].grad is None


def test_unknown_kind() -> None:
    with pytest.raises(UsageError, match="hinge or least_squares"):
        AdversarialLoss("wasserstein")  # type: ignore[arg-type]
