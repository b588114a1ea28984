"""Transformer over time that supports streaming.

Shape suffixes: B batch, L tokens, D width, A heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TemporalTransformer(nn.Module):
    """Pre-norm transformer encoder with banded attention, relative positions and a prefix token.

    Every layer attends to the prefix and to `past_frames` past tokens; the first layers attend to
    `lookahead_frames` future tokens in total. Positions are relative, so a chunk with `num_layers *
    past_frames` tokens of context gives the same output as the whole sequence.

    Paper: Vaswani et al., 2017, arXiv:1706.03762; Shaw et al., 2018, arXiv:1803.02155, for relative
        positions.
    """

    def __init__(
        self,
        dim: int = 512,
        num_layers: int = 6,
        num_heads: int = 8,
        past_frames: int = 5,
        lookahead_frames: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.past_frames = past_frames
        base, extra = divmod(lookahead_frames, num_layers)
        self.layers = nn.ModuleList(
            _Layer(dim, num_heads, past_frames, base + (index < extra), dropout)
            for index in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)

    @property
    def context_frames(self) -> int:
        """Number of past tokens that an output token depends on."""
        return self.past_frames * len(self.layers)

    def forward(self, tokens_BLD: Tensor, prefix_BD: Tensor) -> Tensor:
        """Transform tokens [B, L, D], given the face token [B, D] as a prefix."""
        x = torch.cat([prefix_BD.unsqueeze(1), tokens_BLD], dim=1)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x[:, 1:])


class _Layer(nn.Module):
    def __init__(self, dim: int, num_heads: int, past: int, ahead: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.past, self.ahead, self.dropout = num_heads, past, ahead, dropout
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim)
        )
        # For each head, one bias for every relative position and one for the prefix.
        self.position = nn.Parameter(torch.zeros(num_heads, past + ahead + 2))

    def forward(self, x_BLD: Tensor) -> Tensor:
        batch, length, dim = x_BLD.shape
        qkv = self.qkv(self.norm1(x_BLD)).view(batch, length, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, self._bias(length), dropout)
        x_BLD = x_BLD + self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        return x_BLD + self.mlp(self.norm2(x_BLD))

    def _bias(self, length: int) -> Tensor:
        """Return the additive attention bias [A, length, length].

        The prefix is token 0 and attends only to itself.
        """
        index = torch.arange(length, device=self.position.device)
        offset = index[None, :] - index[:, None]
        allowed = (offset >= -self.past) & (offset <= self.ahead)
        slot = (offset + self.past).clamp(0, self.past + self.ahead)
        slot[:, 0] = self.past + self.ahead + 1
        allowed[:, 0] = True
        allowed[0, 1:] = False
        return self.position[:, slot].masked_fill(~allowed, float("-inf"))
