"""Face detector that always returns the same face."""

import numpy as np

from talkinghead.features.faces.alignment import RIGID_POINTS, canonical_points
from talkinghead.types import AVSpec, Box, Face


class FixedDetector:
    """A detector that returns a face `size` pixels wide in images that are not dark.

    The lips are moved by `mouth` pixels.
    """

    topology = "mesh468"

    def __init__(self, spec=None, size=128.0, mouth=0.0, second=0.0):
        self.spec, self.size = spec or AVSpec(), size
        self.mouth, self.second, self.frame = mouth, second, 0

    def detect(self, image):
        sizes = [size for size in (self.size, self.second) if size and image.mean() >= 40]
        return [self._face(size) for size in sizes]

    def track(self, image, previous):
        self.frame += 1
        return next(iter(self.detect(image)), None)

    def _face(self, size):
        motion = self.mouth * np.sin(self.frame)
        points = np.full((468, 2), size / 2, np.float32) + np.float32([0.0, motion])
        canonical = canonical_points(self.topology, self.spec) * size / self.spec.face_size
        points[list(RIGID_POINTS[self.topology])] = canonical
        points[4] = size / 2
        points[14] += np.float32([0.0, 5.0 + self.mouth])
        return Face(Box(0, 0, size, size), points, 0.9, self.topology)
