"""Batched warp and colour change that are shared by all images of a sample.

Shape suffixes: B samples, N images of a sample, H and W pixels.
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
    """Warp and colour change that are shared by all images of a sample, for a batch.

    The methods for images take uint8 faces [B, N, 3, H, W] and return float images in [0, 1]. They
    compute only the pixels that they return.

    Attributes:
        grid: Sampling positions, float [B, H, W, 2] in [-1, 1].
        matrix: Linear part of the colour change of RGB in [0, 1], float [B, 3, 3].
        offset: Constant part of the colour change, float [B, 3].
        spec: Size and mouth box of the faces.
    """

    grid: Tensor
    matrix: Tensor
    offset: Tensor
    spec: AVSpec

    def turn(self, angles: Tensor) -> Tensor:
        """Return head angles in degrees [B, T, 3], mirrored in samples that are mirrored."""
        signs = angles.new_tensor(MIRRORED)
        return angles * torch.where(self._mirrored[:, None, None], signs, 1.0)

    def points(self, lips: Tensor) -> Tensor:
        """Return the warped positions of lip points [B, N, 20, 2] in canonical pixels.

        The position of a point is the mean of the output pixels that are sampled near the point.
        NaN is kept.
        """
        size = self.grid.shape[1]
        x0, y0, x1, y1 = (int(v) for v in self.spec.mouth_box)
        grid = self.grid[:, y0:y1:_STRIDE, x0:x1:_STRIDE].flatten(1, 2)
        sampled = ((grid + 1) * size - 1) / 2
        y, x = torch.meshgrid(
            *(torch.arange(a, b, _STRIDE, device=grid.device) for a, b in ((y0, y1), (x0, x1))),
            indexing="ij",
        )
        positions = torch.stack([x, y], -1).flatten(0, 1).double()
        # Use double precision and differences: otherwise rounding would depend on the batch size.
        exact = "donot_use_mm_for_euclid_dist"
        distance = torch.cdist(lips.flatten(1, 2).double(), sampled.double(), compute_mode=exact)
        near = distance.square() / (-2 * _STRIDE**2)
        moved = (torch.softmax(near, -1) @ positions).unflatten(1, lips.shape[1:3]).to(lips)
        mirrored = self._mirrored[:, None, None, None]
        return torch.where(mirrored, moved[:, :, MIRRORED_LIPS], moved)

    @property
    def _mirrored(self) -> Tensor:
        return self.grid[:, 0, 0, 0] > self.grid[:, 0, -1, 0]

    def faces(self, images: Tensor) -> Tensor:
        """Return the transformed faces [B, N, 3, H, W]."""
        return self._sample(images, self.grid)

    def mouths(self, images: Tensor) -> Tensor:
        """Return the transformed mouths [B, N, 3, mouth, mouth], resized as by `mouth_crop`."""
        x0, y0, x1, y1 = (int(v) for v in self.spec.mouth_box)
        boxes = self._sample(images, self.grid[:, y0:y1, x0:x1])
        size = (self.spec.mouth_size, self.spec.mouth_size)
        flat = F.interpolate(boxes.flatten(0, 1), size, mode="bilinear", antialias=True)
        return flat.unflatten(0, images.shape[:2])

    def masked_face(self, images: Tensor) -> Tensor:
        """Return the transformed masked faces [B, N, 3, H / 2, W / 2]."""
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
