"""Generated fields to finished pictures, frame by frame."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import cv2
import numpy as np

from talkinghead.features.faces.head_pose import head_turn
from talkinghead.predict.compositing.mouth_region import (
    MouthRegion,
    Texture,
    box_to_picture,
    mouth_region,
    paint_mouth,
)
from talkinghead.predict.compositing.occlusion import OcclusionGuard
from talkinghead.predict.compositing.renderers import Renderer
from talkinghead.predict.compositing.stabiliser import MouthStabiliser
from talkinghead.predict.mouth_generator import GeneratedFrame
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.types import AVSpec, FloatArray, UInt8Array

# From so many degrees on, and wholly at so many, a head has turned its jaw out of the region.
_TURNED_DEG = (8.0, 18.0)


class Compositor:
    """Puts the mouths of all its faces into each picture.

    Args:
        renderer: blends; each face's references work with copies of it.
        spec: the generator's.
        stabilise: whether mouths are smoothed over time.
        occlusion_guard: whether what covers the mouth in a video stays before it.
    """

    def __init__(
        self,
        renderer: Renderer,
        spec: AVSpec,
        stabilise: bool = True,
        occlusion_guard: bool = False,
    ) -> None:
        self._renderer, self._spec, self._stabilise = renderer, spec, stabilise
        self._occlusion_guard = occlusion_guard
        self._painters: dict[_Key, _Painter] = {}
        self._finished: tuple[UInt8Array, bool] | None = None
        self._used: set[_Key] = set()

    def composite(self, frame: GeneratedFrame) -> tuple[UInt8Array, bool]:
        """The picture uint8 [H, W, 3] so far, and whether a mouth was put into it.

        It is finished when `frame.source.is_last`.
        """
        source = frame.source
        image, has_face = self._finished or (source.image, False)
        painted = self._painter(source).paint(image, frame)
        if (
            painted is not None
            and frame.previous_reference is not None
            and source.previous_reference is not None
        ):
            before = self._painter(frame.previous_reference.source).paint(
                image, frame.previous_reference
            )
            if before is not None:
                share = source.previous_reference.share
                painted = np.asarray(cv2.addWeighted(before, share, painted, 1 - share, 0))
        finished = (image, has_face) if painted is None else (painted, True)
        self._finished = None if source.is_last else finished
        if source.is_last:
            # What a painter remembers is of the frame before, or it is nothing.
            self._painters = {key: self._painters[key] for key in self._used}
            self._used.clear()
        return finished

    def _painter(self, source: SourceFrame) -> _Painter:
        key = source.slot, source.reference
        self._used.add(key)
        if key not in self._painters:
            self._painters[key] = _Painter(
                deepcopy(self._renderer),
                self._spec,
                MouthStabiliser() if self._stabilise else None,
                OcclusionGuard() if self._occlusion_guard else None,
            )
        return self._painters[key]


_Key = tuple[int, Reference | None]
"""A face's slot, and its reference."""


class _Painter:
    """One face's mouth, of one reference: stabilised, painted and blended.

    It starts afresh at cuts and wherever the face was lost.
    """

    def __init__(
        self,
        renderer: Renderer,
        spec: AVSpec,
        stabiliser: MouthStabiliser | None,
        guard: OcclusionGuard | None,
    ) -> None:
        self._renderer, self._spec = renderer, spec
        self._stabiliser, self._guard = stabiliser, guard
        self._texture: Texture | None = None
        self._transform: FloatArray | None = None
        self._region: MouthRegion | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets earlier frames."""
        self._renderer.reset()
        if self._stabiliser:
            self._stabiliser.reset()
        if self._guard:
            self._guard.reset()

    def paint(self, image: UInt8Array, frame: GeneratedFrame) -> UInt8Array | None:
        """A copy of the picture with the mouth in it; None where there is none to paint."""
        source, fields = frame.source, frame.fields
        if fields is None or source.transform is None or source.reference is None:
            self.reset()
            return None
        region = self._find_region(image, source.transform)
        if region is None:
            self.reset()
            return None
        if source.opens_shot:
            self.reset()
        time_s = float(source.time_s)
        if self._stabiliser:
            fields = self._stabiliser(fields, time_s)
        texture = self._find_texture(source.reference)
        if self._guard:
            visible = self._guard(source.image, region, texture, time_s)
            region = replace(region, visible=visible)
        region = _without_background(region, source)
        mouth = paint_mouth(fields, texture, region)
        painted = self._renderer.render(image, mouth, region, time_s)
        return _fade(image, painted, region, source.strength)

    def _find_region(self, image: UInt8Array, transform: FloatArray) -> MouthRegion | None:
        if transform is not self._transform:
            self._transform = transform
            self._region = mouth_region(transform, image.shape[0], image.shape[1], self._spec)
        return self._region

    def _find_texture(self, reference: Reference) -> Texture:
        if self._texture is None:
            self._texture = Texture(
                reference.image, box_to_picture(reference.transform, self._spec)
            )
        return self._texture


def _without_background(region: MouthRegion, source: SourceFrame) -> MouthRegion:
    """Leaves alone what is beside a head that has turned since its reference."""
    then = None if source.reference is None else source.reference.pose
    if source.outline is None or source.pose is None or then is None:
        return region
    turn = abs(float(head_turn(source.pose, then)[0]))
    share = np.interp(turn, _TURNED_DEG, (0.0, 1.0))
    if share == 0:
        return region
    kept = 1 - np.float32(share) * (1 - region.inside(source.outline))
    return replace(region, visible=kept if region.visible is None else kept * region.visible)


def _fade(
    image: UInt8Array, painted: UInt8Array, region: MouthRegion, strength: float
) -> UInt8Array:
    """So much of what was painted, where a face comes or goes."""
    if strength < 1:
        before = region.of(image).astype(np.float32)
        mixed = before + np.float32(strength) * (region.of(painted) - before)
        painted[region.rows, region.columns] = np.rint(mixed).astype(np.uint8)
    return painted
