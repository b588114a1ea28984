"""Both sides of the GAN, on logits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from talkinghead.errors import UsageError
from talkinghead.losses.adversarial_loss import AdversarialLoss, feature_matching, gradient_penalty
from talkinghead.models.discriminator import Discriminator


@pytest.mark.parametrize("kind", ["hinge", "least_squares", "relativistic"])
def test_a_right_discriminator_pays_less_and_a_fooled_one_pleases_the_generator(kind: str) -> None:
    loss = AdversarialLoss(kind)
    high, low = torch.full((2, 1, 4, 4), 1.0), torch.full((2, 1, 4, 4), -1.0)
    assert loss.discriminator(high, low) < loss.discriminator(low, high)
    assert loss.generator(high, low) < loss.generator(low, high)


def test_values() -> None:
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


def test_several_scales_are_averaged() -> None:
    loss = AdversarialLoss("hinge")
    scales = [torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 2, 2)]
    assert float(loss.generator(scales, scales)) == pytest.approx(-0.5)


def test_the_penalty_is_the_squared_slope_of_a_logit() -> None:
    pictures = [torch.rand(3, 1, 2, 2, requires_grad=True) for _ in range(2)]
    slopes = [torch.tensor([[1.0, 2.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.0]])]
    logits = [(p * s).sum((2, 3), keepdim=True) for p, s in zip(pictures, slopes, strict=True)]
    assert gradient_penalty(logits, pictures).item() == pytest.approx(9)
    assert gradient_penalty(logits[:1], pictures).item() == pytest.approx(9)
    assert gradient_penalty(logits[1:], pictures[1:]).item() == pytest.approx(9)


def test_pairs_tell_a_soft_picture_in_a_few_iterations() -> None:
    """Whatever its light and colour, and though the penalty holds the discriminator back."""
    torch.manual_seed(0)
    network, loss = Discriminator([16, 32]), AdversarialLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)

    def pictures() -> list[tuple[torch.Tensor, torch.Tensor]]:
        texture = torch.rand(16, 3, 24, 24) * 0.2 + torch.rand(16, 3, 1, 1) * 0.8
        both = (texture, 0.7 * texture + 0.3 * F.avg_pool2d(texture, 3, 1, 1))
        return [(p.requires_grad_(), p) for p in both]

    for _ in range(40):
        real, fake = pictures()
        real_logits, fake_logits = network(*real)[0], network(*fake)[0]
        steep = gradient_penalty(real_logits, real) + gradient_penalty(fake_logits, fake)
        optimizer.zero_grad()
        (loss.discriminator(real_logits, fake_logits) + 1e-4 * steep).backward()
        optimizer.step()
    real, fake = pictures()
    told = network(*real)[0][0] > network(*fake)[0][0]
    assert told.float().mean() > 0.9


def test_feature_matching_pulls_the_fake_alone() -> None:
    fake = [torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 5, requires_grad=True)]
    real = [torch.ones(2, 3, requires_grad=True), torch.full((2, 5), 3.0)]
    value = feature_matching(fake, real)
    assert value.item() == pytest.approx(2)
    value.backward()
    assert fake[0].grad is not None
    assert real[0].grad is None


def test_unknown_kind() -> None:
    with pytest.raises(UsageError, match="hinge, least_squares, relativistic"):
        AdversarialLoss("wasserstein")  # type: ignore[arg-type]
