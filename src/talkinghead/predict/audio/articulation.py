"""Scaling of the amplitude of lip motion relative to silence.

Shape suffixes: N frames, D token dimension.
"""

from __future__ import annotations

from torch import Tensor

from talkinghead.models.lipsync.lip_warp import lip_gaps
from talkinghead.runtime.generator_backend import GeneratorBackend

# Rise of the upper lip per pixel of added mouth opening. The speakers of the packaged model's
# training data read with little motion, and their upper lip moves down with the jaw. In clearer
# articulation the upper lip rises and shows teeth.
_UPPER_LIP_RISE = 0.3
# Weight of each ibug68 lip point in the motion of the upper lip.
_UPPER_LIP_WEIGHTS = (0, 0.5, 1, 1, 1, 0.5, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0)


def articulate(
    model: GeneratorBackend, tokens_ND: Tensor, silence_D: Tensor, articulation: float
) -> Tensor:
    """Return tokens whose lip motion relative to silence is scaled by `articulation`.

    Up to 1 the tokens are interpolated with the token of silence. Above 1 only the lip motion is
    extrapolated, since the tokens also control shading, which would become too dark; the upper lip
    additionally rises with the opening.

    Args:
        model: the generator.
        tokens_ND: tokens, float [N, D].
        silence_D: token of silence, float [D].
        articulation: scale, 0 or more.
    """
    tokens_ND = silence_D.lerp(tokens_ND, min(1.0, articulation))
    if articulation <= 1:
        return tokens_ND
    silent = model.decode_lip_motion(silence_D)
    lips = silent.lerp(model.decode_lip_motion(tokens_ND), articulation)
    opening = lip_gaps(lips - silent).mean(1, keepdim=True)
    weights = lips.new_tensor(_UPPER_LIP_WEIGHTS)
    lips[..., 1] -= (articulation - 1) * _UPPER_LIP_RISE * opening * weights
    return model.set_lip_motion(tokens_ND, lips)
