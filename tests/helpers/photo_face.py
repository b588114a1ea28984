"""A photo with the position of its face, for tests that need no detector."""

import numpy as np
from skimage.data import astronaut

from talkinghead.predict.compositing.mouth_region import box_to_image
from talkinghead.types import AVSpec

PHOTO = astronaut()
FACE = np.float32([[1.589, 0.0824, -237.3], [-0.0824, 1.589, -52.01]])
"""Transform from the photo to the canonical face, computed by `estimate_transform`."""
BOX = box_to_image(FACE, AVSpec())
"""Transform from units of the mouth box to the photo."""
