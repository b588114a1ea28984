"""A drawn mouth interior for references that show none: teeth, tongue and cavity.

No warp can fill the gap between closed lips, and a network that was trained on few people outputs a
haze for unseen faces. Mouth interiors differ little between people, so they are drawn, and the
network only tints them.

Widths of teeth: Ash & Nelson, "Wheeler's Dental Anatomy", 2003, projected from an arch of 30 mm
half width and 45 mm depth onto the image, for a mouth of 50 mm.

Shape suffixes: N frames, H and W positions. Coordinates are those of `lip_warp.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from talkinghead.models.lipsync.lip_warp import LOWER_EDGE, UPPER_EDGE, lip_edge
from talkinghead.types import LUMA


class _Row(NamedTuple):
    """A row of teeth.

    Attributes:
        gaps: positions of the gaps between teeth in half mouth widths.
        gap_width: width of the gaps in half mouth widths.
        length: visible length of the middle teeth in mouth widths.
        curve: relative decrease of the length at the mouth's corners.
        extent: half width of the row in half mouth widths.
        brightness: brightness relative to the skin.
    """

    gaps: tuple[float, ...]
    gap_width: float
    length: float
    curve: float
    extent: float
    brightness: float


_UPPER = _Row((-0.76, -0.55, -0.33, 0.0, 0.33, 0.55, 0.76), 0.03, 0.11, 0.6, 0.82, 1.0)
_LOWER = _Row((-0.64, -0.42, -0.21, 0.0, 0.21, 0.42, 0.64), 0.025, 0.055, 1.1, 0.72, 0.8)
# Gaps between teeth: how much they darken the row, and the depth of the notch that they cut into
# its edge, relative to the length of the teeth.
_GAP_DARKENING, _GAP_NOTCH = 0.1, 0.06
_SIDE_DARKENING, _ROOT_DARKENING = 0.45, 0.25
# Blend weight of grey in the colour of the teeth; the rest is the skin's colour.
_GREYNESS = 0.6
# Colours (red, green, blue) relative to the brightness of the skin. In videos of ten people, the
# darkest fifth of the open mouth had (0.58, 0.28, 0.20) in the median, and (0.20, 0.04, 0.03) in
# the darkest mouth. The cavity is near the latter, because landmark trackers see thin lips around a
# lighter one as less open.
_CAVITY, _TONGUE = (0.22, 0.09, 0.07), (0.55, 0.3, 0.27)
# Height of the tongue relative to the gap between the lips, and gap in mouth widths at which the
# tongue and the lower teeth are half visible.
_TONGUE_HEIGHT, _TONGUE_GAP, _LOWER_GAP = 0.45, 0.26, 0.22
_SOFT = 0.006


def draw_mouth_interior(
    x: Tensor, y: Tensor, closed: Tensor, moved: Tensor, skin: Tensor
) -> Tensor:
    """Draw teeth, tongue and cavity: RGB [N, 3, H, W] in (0, 1).

    The upper teeth move with the head, the lower teeth and the tongue with the lower lip.

    Args:
        x: [W], horizontal coordinates of the positions.
        y: [H], vertical coordinates.
        closed: the face's closed lips [N or 1, 20, 2].
        moved: the displaced lips [N, 20, 2].
        skin: colour of the reference's bright skin [N or 1, 3, 1, 1] in [0, 1].
    """
    across, down = x[None, None], y[None, :, None]
    right, left = closed[:, 12, 0, None, None], closed[:, 16, 0, None, None]
    width = (left - right).clamp_min(1e-3)
    side = (across - (left + right) / 2) * 2 / width
    enamel = torch.lerp(skin, luminance(skin), _GREYNESS)

    top, bottom = lip_edge(across, closed[:, UPPER_EDGE]), lip_edge(across, moved[:, LOWER_EDGE])
    lower_lip = moved[:, 18, 1, None, None]
    gap = (lower_lip - moved[:, 14, 1, None, None]).clamp_min(0)
    openness = torch.sigmoid((gap / width - _TONGUE_GAP) * 30)
    tongue_height = _TONGUE_HEIGHT * gap * (1 - 0.7 * side.square()).clamp_min(0)
    height = (bottom - down) / tongue_height.clamp_min(_SOFT)
    tongue_mask = torch.sigmoid((1 - height) * 5) * openness
    tongue_light = (1 - 0.6 * height.clamp(0, 1)) * (1 - 0.45 * side.square())
    brightness = skin.mean(1, keepdim=True)
    cavity = brightness * skin.new_tensor(_CAVITY)[:, None, None]
    tongue = brightness * skin.new_tensor(_TONGUE)[:, None, None] * tongue_light[:, None]
    image = torch.lerp(cavity, tongue, tongue_mask[:, None])

    lower_mask, lower_light = _teeth(_LOWER, side, bottom - down, width)
    lower_mask = lower_mask * torch.sigmoid((gap / width - _LOWER_GAP) * 40)
    image = torch.lerp(image, enamel * lower_light[:, None], lower_mask[:, None])
    upper_mask, upper_light = _teeth(_UPPER, side, down - top, width)
    image = torch.lerp(image, enamel * upper_light[:, None], upper_mask[:, None])
    return image.clamp(0.02, 0.96)


def luminance(image: Tensor) -> Tensor:
    """Return the luminance [N, 1, H, W] of RGB images [N, 3, H, W]."""
    return (image * image.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def _teeth(row: _Row, side: Tensor, depth: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mask and the brightness [N, H, W] of a row of teeth.

    The horizontal position `side`, [N, 1, W], is in half mouth widths; `depth`, [N, H, W], is the
    distance from the lip from which the teeth emerge; `width` is that of the mouth, [N, 1, 1].
    """
    distance = (side[..., None] - side.new_tensor(row.gaps)) / row.gap_width
    notch = torch.exp(-distance.square() / 2).sum(-1)
    length = width * row.length * (1 - row.curve * side.square()).clamp_min(0)
    edge = length * (1 - _GAP_NOTCH * notch)
    mask = torch.sigmoid((edge - depth) / _SOFT) * torch.sigmoid((row.extent - side.abs()) * 20)
    root = (1 - depth / length.clamp_min(_SOFT)).clamp(0, 1)
    light = 1 - _SIDE_DARKENING * side.square() - _ROOT_DARKENING * root.square()
    return mask, row.brightness * light * (1 - _GAP_DARKENING * notch)
