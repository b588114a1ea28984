"""What the generator may be told beside a face and speech, by choice: emotion, head pose.

Both begin at nothing: weights that were trained without them go on where they were.

Shape suffixes: B batch, N frames, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from talkinghead.errors import UsageError

_TURN_UNIT = 30.0
"""Degrees that count as one."""


class EmotionEncoder(nn.Module):
    """A vector for each emotion, added to the token of whoever speaks.

    Args:
        names: the emotions.
        dim: width of the token.

    Attributes:
        default: the number of the one that is taken where none is given: the first, or what
            `choose_emotion` says.
    """

    def __init__(self, names: Sequence[str], dim: int) -> None:
        super().__init__()
        self.names, self.default = list(names), 0
        self.table = nn.Embedding(len(self.names), dim)
        nn.init.zeros_(self.table.weight)

    def forward(self, token_BD: Tensor, emotion_B: Tensor | None) -> Tensor:
        """Tokens [B, D] with emotions, int64 [B], numbers in `names`."""
        if emotion_B is None:
            emotion_B = torch.full((len(token_BD),), self.default, device=token_BD.device)
        return token_BD + self.table(emotion_B)


class PoseEncoder(nn.Module):
    """How far the head is turned from the reference's, added to the token of each frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, dim), nn.SiLU(), nn.Linear(dim, dim))
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, token_ND: Tensor, turn_N3: Tensor | None) -> Tensor:
        """Tokens [N, D] with turns [N, 3], degrees; None is no turn."""
        if turn_N3 is None:
            turn_N3 = torch.zeros(len(token_ND), 3, device=token_ND.device)
        return token_ND + self.layers(turn_N3 / _TURN_UNIT)


def choose_emotion(encoder: EmotionEncoder | None, name: str) -> None:
    """What a generator, whose `emotion` this is, shows from now on where nothing else is given.

    Raises:
        UsageError: it does not know the emotion.
    """
    if encoder is None or name not in encoder.names:
        known = f"it knows {', '.join(encoder.names)}" if encoder else "it knows no emotions"
        raise UsageError(f"emotion={name} means nothing to this checkpoint: {known}")
    encoder.default = encoder.names.index(name)
