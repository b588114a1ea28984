"""Weighted L1 and L1 of image gradients."""

from __future__ import annotations

import pytest
import torch

from talkinghead.errors import UsageError
from talkinghead.losses.reconstruction_loss import ReconstructionLoss, soft_weight_map


def test_weight_map_peaks_on_the_lips_with_mean_one() -> None:
    weights = soft_weight_map(96, 4.0, (0.5, 0.45), (0.22, 0.2))[0]
    row, column = divmod(int(weights.argmax()), 96)
    assert abs(row - 43) <= 1
    assert abs(column - 47) <= 1
    assert float(weights.mean()) == pytest.approx(1, abs=1e-5)
    assert float(weights[0, 0]) < float(weights.max()) / 3


def test_a_constant_error_has_its_l1_and_no_gradient_term() -> None:
    target = torch.rand(2, 3, 3, 96, 96) * 0.5
    terms = ReconstructionLoss()(target + 0.1, target)
    assert float(terms["l1"]) == pytest.approx(0.1, abs=1e-5)
    assert float(terms["gradient"]) == pytest.approx(0, abs=1e-5)


def test_errors_on_the_lips_weigh_more_than_in_a_corner() -> None:
    loss = ReconstructionLoss()
    target = torch.zeros(1, 3, 96, 96)
    lips, corner = target.clone(), target.clone()
    lips[..., 40:48, 44:52] = 1
    corner[..., 4:12, 4:12] = 1
    assert loss(lips, target)["l1"] > 2 * loss(corner, target)["l1"]


def test_gradient_term_penalises_blur() -> None:
    target = torch.zeros(1, 3, 96, 96)
    target[..., ::8] = 1
    blurred = torch.nn.functional.avg_pool2d(target, 9, 1, 4)
    terms = ReconstructionLoss()(blurred, target)
    assert terms["gradient"] > terms["l1"]


def test_motion_gain_weights_moving_pixels_up() -> None:
    loss = ReconstructionLoss(motion_gain=10)
    mean = torch.full((1, 3, 96, 96), 0.5)
    still, moved = mean[:, None].expand(1, 2, -1, -1, -1), mean[:, None].repeat(1, 2, 1, 1, 1)
    moved[..., 40:56, 40:56] = 0.1
    assert bool((loss.motion_weights(still, mean) == 1).all())
    weights = loss.motion_weights(moved, mean)
    assert weights.shape == (1, 2, 1, 96, 96)
    assert float(weights[0, 0, 0, 48, 48]) == pytest.approx(5, abs=1e-4)
    assert float(weights[0, 0, 0, 10, 10]) == 1
    plain = loss(moved + 0.1, moved)["l1"]
    torch.testing.assert_close(loss(still + 0.1, still, torch.ones(()))["l1"], plain)
    assert float(loss(moved + 0.1, moved, weights)["l1"]) > 1.2 * float(plain)
    assert loss.motion_weights(moved, None).ndim == 0


def test_other_image_sizes_and_invalid_weights() -> None:
    loss = ReconstructionLoss(mouth_size=96)
    terms = loss(torch.ones(1, 3, 48, 48), torch.zeros(1, 3, 48, 48))
    assert float(terms["l1"]) == pytest.approx(1, abs=0.01)
    with pytest.raises(UsageError, match="peak"):
        ReconstructionLoss(peak=0.5)
    with pytest.raises(UsageError, match="motion_gain"):
        ReconstructionLoss(motion_gain=-1)
