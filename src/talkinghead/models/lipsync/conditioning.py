"""Optional conditioning of the generator on emotion and head pose.

Neither module has an effect before training, so weights that were trained without them can be
fine-tuned.

Shape suffixes: B batch, N frames, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from talkinghead.errors import UsageError

_TURN_UNIT = 30.0
"""Number of degrees that equal 1 in the input of `PoseEncoder`."""


class EmotionEncoder(nn.Module):
    """Module that adds a learned vector of the emotion to the reference token.

    Attributes:
        default: index of the emotion that is used if none is given; see `choose_emotion`.
    """

    def __init__(self, names: Sequence[str], dim: int) -> None:
        super().__init__()
        self.names, self.default = list(names), 0
        self.table = nn.Embedding(len(self.names), dim)
        nn.init.zeros_(self.table.weight)

    def forward(self, token_BD: Tensor, emotion_B: Tensor | None) -> Tensor:
        """Condition tokens [B, D] on emotions, given as indices int64 [B] into `names`."""
        if emotion_B is None:
            emotion_B = torch.full((len(token_BD),), self.default, device=token_BD.device)
        return token_BD + self.table(emotion_B)


class PoseEncoder(nn.Module):
    """Module that adds an embedding of the head rotation to the token of each frame.

    The rotation is relative to the reference.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, dim), nn.SiLU(), nn.Linear(dim, dim))
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, token_ND: Tensor, turn_N3: Tensor | None) -> Tensor:
        """Condition tokens [N, D] on rotations [N, 3] in degrees; None means no rotation."""
        if turn_N3 is None:
            turn_N3 = torch.zeros(len(token_ND), 3, device=token_ND.device)
        return token_ND + self.layers(turn_N3 / _TURN_UNIT)


def choose_emotion(encoder: EmotionEncoder | None, name: str) -> None:
    """Set the default emotion of the emotion encoder of a generator.

    Raises:
        UsageError: the generator does not have this emotion.
    """
    if encoder is None or name not in encoder.names:
        known = f"it has {', '.join(encoder.names)}" if encoder else "it has none"
        raise UsageError(f"trained_emotion: this checkpoint has no emotion {name}: {known}")
    encoder.default = encoder.names.index(name)
