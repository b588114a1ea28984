"""Segmentation of a head."""

from __future__ import annotations

import numpy as np
from skimage.data import astronaut

from talkinghead.features.faces.head_pose import fit_face_frame
from talkinghead.predict.source.head import head_segmentation
from talkinghead.predict.source.head.head_geometry import model_head
from talkinghead.predict.source.head.head_segmentation import segment_head


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def test_one_failed_segmentation_does_not_change_the_mask(faces, monkeypatch):
    photo, face = astronaut(), faces[0]
    height, width = photo.shape[:2]
    head = model_head(face, fit_face_frame(face), width, height, [])
    x0, y0, x1, y1 = (int(side) for side in head.box)
    area = np.ascontiguousarray(photo[y0:y1, x0:x1])
    mask = segment_head(area, head)
    starts = head_segmentation._STARTS
    everything = starts[0]._replace(core=9.0, hair=9.0)
    monkeypatch.setattr(head_segmentation, "_STARTS", (everything, *starts[1:]))
    assert overlap(segment_head(area, head), mask) > 0.95
    monkeypatch.setattr(head_segmentation, "_STARTS", (everything,))
    assert overlap(segment_head(area, head), mask) < 0.8
