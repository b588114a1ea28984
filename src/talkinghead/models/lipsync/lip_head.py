"""Linear head that reads the lip motion from tokens, and writes it into them.

Shape suffixes: D width of the tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.features.faces.alignment import NUM_LIP_POINTS


class LipHead(nn.Linear):
    """Linear map from tokens to lip motion, which is 0 before training.

    Args:
        dim: width D of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 2 * NUM_LIP_POINTS)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        self._inverted: tuple[Tensor, Tensor] | None = None  # A weight, and its inverse.

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the lip motion [..., 20, 2] of tokens [..., D].

        The lip motion consists of displacements of closed lips in canonical pixels.
        """
        return super().forward(tokens).unflatten(-1, (NUM_LIP_POINTS, 2))

    def set_motion(self, tokens: Tensor, lips: Tensor, blend_weight: float = 1.0) -> Tensor:
        """Change tokens [..., D] as little as possible so that their lip motion approaches `lips`.

        Args:
            tokens: [..., D].
            lips: [..., 20, 2]; tokens with NaN lips are unchanged.
            blend_weight: 0 keeps the tokens' own lip motion, 1 replaces it.
        """
        weight, bias = self.weight.detach(), self.bias.detach()
        change = lips.flatten(-2) - F.linear(tokens, weight, bias)
        change = torch.where(change.isfinite().all(-1, keepdim=True), change, 0.0)
        return tokens + blend_weight * F.linear(change, self._inverse(weight))

    def _inverse(self, weight: Tensor) -> Tensor:
        """Return the pseudo-inverse [D, 40], which takes longer than the rest of `set_motion`."""
        last = self._inverted  # Another thread may replace it.
        if last is None or not _is_same(last[0], weight):
            # A tensor made in inference mode could not be used in training, and one made with
            # automatic mixed precision would have a lower precision in all later calls.
            full_precision = torch.autocast(weight.device.type, enabled=False)
            with torch.inference_mode(False), full_precision:
                last = self._inverted = weight.clone(), torch.linalg.pinv(weight)
        return last[1]


def _is_same(first: Tensor, second: Tensor) -> bool:
    kinds = (first.device, first.dtype), (second.device, second.dtype)
    return kinds[0] == kinds[1] and torch.equal(first, second)
