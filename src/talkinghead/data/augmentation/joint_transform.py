"""One warp and one change of colour for all pictures of a sample, for whole batches.

Shape suffixes: B samples, N pictures of a sample, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from talkinghead.features.faces.alignment import MIRRORED_LIPS, mask_mouth
from talkinghead.features.faces.head_pose import MIRRORED
from talkinghead.types import AVSpec

_STRIDE = 2


@dataclass(frozen=True)
class JointTransform:
    """What happens alike to all pictures of a sample, computed for the pixels that are asked for.

    `grid` [B, H, W, 2] in [-1, 1], `matrix` [B, 3, 3] and `offset` [B, 3] of RGB in [0, 1].
    Pictures go in as uint8 faces [B, N, 3, H, W] and come out as float in [0, 1].
    """

    grid: Tensor
    matrix: Tensor
    offset: Tensor
    spec: AVSpec

    def turn(self, angles: Tensor) -> Tensor:
        """How far heads are turned, degrees [B, T, 3]: in a mirror to the other side."""
        mirrored = self._mirrored[:, None, None]
        return angles * torch.where(mirrored, angles.new_tensor(MIRRORED), 1.0)

    def points(self, lips: Tensor) -> Tensor:
        """Where lips [B, N, 20, 2], canonical pixels, go; NaN stays NaN.

        Each is the mean place of the pixels that are sampled from near it.
        """
        size = self.grid.shape[1]
        x0, y0, x1, y1 = (int(v) for v in self.spec.mouth_box)
        grid = self.grid[:, y0:y1:_STRIDE, x0:x1:_STRIDE].flatten(1, 2)
        sampled = ((grid + 1) * size - 1) / 2
        y, x = torch.meshgrid(
            *(torch.arange(a, b, _STRIDE, device=grid.device) for a, b in ((y0, y1), (x0, x1))),
            indexing="ij",
        )
        places = torch.stack([x, y], -1).flatten(0, 1).double()
        # By differences, in doubles: else the rounding depends on the batch's size.
        exact = "donot_use_mm_for_euclid_dist"
        distance = torch.cdist(lips.flatten(1, 2).double(), sampled.double(), compute_mode=exact)
        near = distance.square() / (-2 * _STRIDE**2)
        moved = (torch.softmax(near, -1) @ places).unflatten(1, lips.shape[1:3]).to(lips)
        mirrored = self._mirrored[:, None, None, None]
        return torch.where(mirrored, moved[:, :, MIRRORED_LIPS], moved)

    @property
    def _mirrored(self) -> Tensor:
        return self.grid[:, 0, 0, 0] > self.grid[:, 0, -1, 0]

    def faces(self, images: Tensor) -> Tensor:
        """Whole faces [B, N, 3, H, W]."""
        return self._sample(images, self.grid)

    def mouths(self, images: Tensor) -> Tensor:
        """Their mouths [B, N, 3, mouth, mouth], filtered as `mouth_crop` does."""
        x0, y0, x1, y1 = (int(v) for v in self.spec.mouth_box)
        boxes = self._sample(images, self.grid[:, y0:y1, x0:x1])
        size = (self.spec.mouth_size, self.spec.mouth_size)
        flat = F.interpolate(boxes.flatten(0, 1), size, mode="bilinear", antialias=True)
        return flat.unflatten(0, images.shape[:2])

    def masked_face(self, images: Tensor) -> Tensor:
        """Their masked_face [B, N, 3, H / 2, W / 2], the mouth's box black."""
        half = F.avg_pool2d(self.grid.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        return mask_mouth(self._sample(images, half), self.spec)

    def _sample(self, images: Tensor, grid: Tensor) -> Tensor:
        (batch, num), (height, width) = images.shape[:2], grid.shape[1:3]
        flat = images.flatten(1, 2).float()
        warped = F.grid_sample(
            flat, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        pixels = warped.view(batch, num, 3, height * width)
        coloured = torch.matmul(self.matrix[:, None] / 255.0, pixels)
        coloured = coloured.add_(self.offset[:, None, :, None]).clamp_(0.0, 1.0)
        return coloured.view(batch, num, 3, height, width)
