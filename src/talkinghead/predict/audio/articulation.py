"""How far a mouth moves: lips less far from silence than speech takes them, or further.

Shape suffixes: N frames, D token dimension.
"""

from __future__ import annotations

from torch import Tensor

from talkinghead.models.lipsync.lip_warp import lip_gaps
from talkinghead.runtime.generator_backend import GeneratorBackend

_RAISED = 0.3
"""How far the upper lip rises, of an opening that is as far again as learnt.

The packaged model has learnt from readers with small mouths, whose upper lip comes down with the
jaw. Who speaks up raises it, and shows teeth.
"""

_UPPER = (0, 0.5, 1, 1, 1, 0.5, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0)
"""How much each of ibug68's lip points is the upper lip's."""


def articulate(
    model: GeneratorBackend, tokens_ND: Tensor, silence_D: Tensor, articulation: float
) -> Tensor:
    """Tokens [N, D] whose lips are `articulation` times as far from silence's as they are.

    Over 1 the upper lip rises with the opening besides, and what else a token says is kept: a
    shadow below the lip is not to be twice as dark.
    """
    tokens_ND = silence_D.lerp(tokens_ND, min(1.0, articulation))
    if articulation <= 1:
        return tokens_ND
    silent = model.decode_lip_motion(silence_D)
    lips = silent.lerp(model.decode_lip_motion(tokens_ND), articulation)
    opening = lip_gaps(lips - silent).mean(1, keepdim=True)
    lips[..., 1] -= (articulation - 1) * _RAISED * opening * lips.new_tensor(_UPPER)
    return model.set_lip_motion(tokens_ND, lips)
