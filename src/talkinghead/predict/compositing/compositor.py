"""Composite generated mouths into the source frames."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TypeAlias

import cv2
import numpy as np

from talkinghead.features.faces.alignment import chain_transforms, invert, transform_points
from talkinghead.features.faces.head_pose import head_turn
from talkinghead.media.decoding.video_image import ImageLike
from talkinghead.media.encoding.patched_image import Patch, PatchedImage
from talkinghead.predict.compositing.edge_fade import edge_fade
from talkinghead.predict.compositing.lighting import LightMatcher
from talkinghead.predict.compositing.mouth_region import (
    MouthRegion,
    PaintedMouth,
    Texture,
    box_to_image,
    find_mouth_region,
    paint_mouth,
)
from talkinghead.predict.compositing.occlusion import OcclusionGuard
from talkinghead.predict.compositing.renderers import Renderer
from talkinghead.predict.compositing.sharpness import BlurMatcher
from talkinghead.predict.compositing.stabiliser import MouthFields, MouthStabiliser
from talkinghead.predict.compositing.warp.full_size import FullSizeTransfer
from talkinghead.predict.compositing.warp.jaw import JawWarp
from talkinghead.predict.compositing.warp.lip_sides import is_open
from talkinghead.predict.mouth_generator import GeneratedFrame
from talkinghead.predict.source.source_frame import Animation, Reference, SourceFrame
from talkinghead.types import AVSpec, FloatArray, UInt8Array

# Space below the chin in which it may move, as a fraction of the box side. It decreases between two
# yaw angles relative to the reference, which has background there if the head is turned.
_CHIN_SPACE, _CHIN_SPACE_DEG = 0.12, (4.0, 12.0)

# Heads and faces move smoothly towards their target: fraction of the distance that is left after a
# frame at this frame rate, and minimum motion, in degrees and in blendshape weights.
_STILL_PART, _MOTION_FPS, _MIN_MOTION = 0.75, 25, 0.01

# Change of the reference: differences in levels from which mouths are mixed less, and from which
# they are not mixed; reach of a difference as a fraction of the height of the mouth.
_FADE_LEVELS, _FADE_REACH = (12.0, 30.0), 0.03

_PainterKey: TypeAlias = tuple[int, Reference | None]
"""Slot of a face, and the reference of the face."""
_Still: TypeAlias = tuple[ImageLike, tuple[slice, slice], tuple[UInt8Array, UInt8Array]]
"""An image, a part of it, and the part at full size and reduced."""


class Compositor:
    """A compositor that inserts the mouths of all faces into each frame.

    Args:
        renderer: the blending method; every pair of a face and a reference gets a copy of it.
        spec: the generator's AVSpec.
        stabilise: smooth the mouths over time.
        occlusion_guard: keep objects in front of the mouth, such as a microphone, visible.
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
        self._painters: dict[_PainterKey, _MouthPainter] = {}
        self._unfinished: tuple[PatchedImage, bool] | None = None
        self._used: set[_PainterKey] = set()
        # The smoothed state of each animation, by the slot of the last face that it animates.
        self._head_states: dict[int, FloatArray] = {}
        # The animations of the current image, each with the last face that it animates.
        self._moving: list[tuple[Animation, GeneratedFrame]] = []

    def composite(self, frame: GeneratedFrame) -> tuple[UInt8Array, bool]:
        """Add the mouth of one face to the current frame.

        Returns:
            The image uint8 [H, W, 3] with the mouths so far, complete if `frame.source.is_last`;
            and whether it contains a generated or a covered mouth.
        """
        image, has_mouth = self.composite_patches(frame)
        return image.to_array(), has_mouth

    def composite_patches(self, frame: GeneratedFrame) -> tuple[PatchedImage, bool]:
        """Composite as `composite` does, but return the mouths as patches of the frame's image."""
        source = frame.source
        image, has_mouth = self._unfinished or (PatchedImage(source.image), False)
        painter = self._painter(source)
        painted = painter.paint(image, frame)
        if painted is not None and frame.previous_reference and source.previous_reference:
            previous_source = frame.previous_reference.source
            previous = self._painter(previous_source).paint(image, frame.previous_reference)
            if previous is not None:
                weight = source.previous_reference.weight
                painted = painted._replace(
                    pixels=cross_fade(previous.pixels, painted.pixels, weight)
                )
        has_mouth = has_mouth or painted is not None or source.is_covered
        if painted is not None:
            image = painter.move_jaw(image.with_patch(painted), source)
        result = image, has_mouth
        self._unfinished = None if source.is_last else result
        if source.animation is not None:
            if self._moving and self._moving[-1][0] is source.animation:
                self._moving.pop()
            self._moving.append((source.animation, frame))
        if source.is_last:
            image = result[0]
            for animation, moving in self._moving:
                image = self._animate(animation, image, moving)
            result = image, has_mouth
            # Discard unused states and painters, which are valid only for consecutive frames.
            slots = [moving.source.slot for _, moving in self._moving]
            self._head_states = {slot: self._head_states[slot] for slot in slots}
            self._moving.clear()
            self._painters = {key: self._painters[key] for key in self._used}
            self._used.clear()
        return result

    def _animate(
        self, animation: Animation, image: PatchedImage, frame: GeneratedFrame
    ) -> PatchedImage:
        """Return the image with moved heads and faces; their motion is smoothed over time."""
        target = animation.target(frame.cue)
        rate = np.float32(1 - _STILL_PART ** float(frame.source.duration_s * _MOTION_FPS))
        state = self._head_states.get(frame.source.slot, np.zeros(1, np.float32))
        state = state + rate * (target - state)
        if max(np.abs(state).max(), np.abs(target).max()) < _MIN_MOTION:
            state[:] = 0
        self._head_states[frame.source.slot] = state
        if animation.is_still(state):
            return image
        time_s, gesture = float(frame.source.time_s), frame.cue.gesture
        return animation.render_patched(image, time_s, state, gesture)

    def _painter(self, source: SourceFrame) -> _MouthPainter:
        key = source.slot, source.reference
        self._used.add(key)
        if key not in self._painters:
            filters = self._stabilise, self._occlusion_guard
            self._painters[key] = _MouthPainter(deepcopy(self._renderer), self._spec, *filters)
        return self._painters[key]


class _MouthPainter:
    """The filters and the renderer for the mouth of one face with one reference.

    The filters are reset at cuts and wherever the face was lost.
    """

    def __init__(self, renderer: Renderer, spec: AVSpec, stabilise: bool, guard: bool) -> None:
        self._renderer, self._spec = renderer, spec
        self._stabiliser = MouthStabiliser() if stabilise else None
        self._guard = OcclusionGuard() if guard else None
        self._light, self._blur = LightMatcher(), BlurMatcher()
        # Custom renderers need not have the attributes of those of the package.
        has_grain, seed = getattr(renderer, "grain", False), getattr(renderer, "seed", 0)
        self._full_size = FullSizeTransfer(has_grain, seed)
        self._texture: Texture | None = None
        self._transform: FloatArray | None = None
        self._region: MouthRegion | None = None
        self._still: _Still | None = None
        self._jaw: JawWarp | None = None
        self._flow: FloatArray | None = None
        self._is_open: bool | None = None
        self.reset()

    def reset(self) -> None:
        """Clear the state of all temporal filters."""
        self._renderer.reset()
        self._blur.reset()
        self._full_size.reset()
        if self._stabiliser:
            self._stabiliser.reset()
        if self._guard:
            self._guard.reset()

    def paint(self, image: PatchedImage, frame: GeneratedFrame) -> Patch | None:
        """Return the region of the image with the mouth, or None if the frame has no mouth."""
        source, fields = frame.source, frame.fields
        if source.transform is None:
            self._transform = self._region = None
        elif source.transform is not self._transform:
            self._transform = source.transform
            self._jaw = None
            height, width = image.base.shape[:2]
            self._region = find_mouth_region(
                self._transform, height, width, self._spec, reduce=True
            )
        region = self._region
        if fields is None or region is None or source.reference is None or source.is_covered:
            self.reset()
            return None
        if source.starts_shot:
            self.reset()
        time_s = float(source.time_s)
        if self._stabiliser:
            fields = self._stabiliser(fields, time_s)
        self._flow = fields.flow
        if not self._is_reference_open(source.reference):
            fields = replace(fields, sides=None)
        if self._texture is None:
            reference = source.reference
            self._texture = Texture(reference.image, box_to_image(reference.transform, self._spec))
        region, mouth = self._paint(fields, region, source)
        original, reduced = self._crop(image, region)
        face = _reference_face(source)
        if face is not None:
            fade = edge_fade(mouth.image, reduced, region, region.from_frame(face))
            if fade is not None:
                visible = fade if region.visibility is None else fade * region.visibility
                region = replace(region, visibility=visible)
        painted = self._renderer.render(reduced, mouth, region.alone, time_s)
        if mouth.texture is not None:
            painted = self._full_size(painted, reduced, original, mouth, region, time_s)
        if source.strength < 1:
            difference = painted.astype(np.float32) - original
            mixed = np.rint(original + np.float32(source.strength) * difference)
            painted = mixed.astype(np.uint8)
        rows, columns = region.frame_part
        return Patch(rows.start, columns.start, painted)

    def _paint(
        self, fields: MouthFields, region: MouthRegion, source: SourceFrame
    ) -> tuple[MouthRegion, PaintedMouth]:
        """Return the mouth in the light and with the blur of the frame, and where it is visible."""
        texture, time_s = self._texture, float(source.time_s)
        assert texture is not None
        light = self._light(source.image, region.frame_box_to_image, texture)
        if self._guard:
            even = None if light is None else light.without_local
            visibility = self._guard(source.image, region, texture, time_s, even)
            if visibility is not None:
                region = replace(region, visibility=visibility)
        region = _mask_background(region, source)
        blur = self._blur(source.image, region.frame_box_to_image, texture, time_s)
        mouth = paint_mouth(fields, texture, region, blur)
        if light is not None:
            relit = light.apply(mouth.image, region.box_xy)
            detail = None if mouth.texture is None else light.apply_colours(mouth.texture)
            mouth = replace(mouth, image=relit, texture=detail)
        return region, mouth

    def _is_reference_open(self, reference: Reference) -> bool:
        if self._is_open is None:
            to_box = invert(box_to_image(reference.transform, self._spec))
            self._is_open = is_open(transform_points(reference.lips, to_box))
        return self._is_open

    def move_jaw(self, image: PatchedImage, source: SourceFrame) -> PatchedImage:
        """Move the chin of a photo with the lower lip of the mouth that `paint` returned last."""
        reference, transform = source.reference, source.transform
        if reference is None or transform is None or self._flow is None:
            return image
        if source.outline is not None or source.image is not reference.image:
            return image  # The frames of a video already show the motion of the chin.
        if self._jaw is None:
            height, width = image.base.shape[:2]
            self._jaw = JawWarp(transform, reference.lips, self._spec, height, width)
        return self._jaw(image, self._flow)

    def _crop(self, image: PatchedImage, region: MouthRegion) -> tuple[UInt8Array, UInt8Array]:
        """Return the region of an image at full size, and reduced.

        They are the same arrays as before if nothing has changed, because renderers recognise a
        still image by the identity of the array.
        """
        part = region.frame_part
        crop = image.crop(*part)
        # A crop with patches, such as the mouth of another face, is not a part of the base.
        is_base = isinstance(image.base, np.ndarray) and np.may_share_memory(crop, image.base)
        if is_base and self._still is not None:
            base, known, still = self._still
            if image.base is base and known == part:
                return still
        reduced = crop
        if region.factor > 1:
            size = region.radius.shape[::-1]
            reduced = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
        if is_base:
            self._still = image.base, part, (crop, reduced)
        return crop, reduced


def cross_fade(previous: UInt8Array, current: UInt8Array, weight: float) -> UInt8Array:
    """Return a mix of two images of a mouth, `weight` of which is the previous one.

    Where they differ much, such as at the edges of the lips, one of them is shown: a mix would show
    the lips twice. All images are uint8 [h, w, 3].
    """
    before, after = previous.astype(np.float32), current.astype(np.float32)
    difference = np.abs(before - after).max(-1)
    # Whole lips change at once, not only their edges.
    radius = max(1, round(_FADE_REACH * len(difference)))
    difference = cv2.dilate(difference, np.ones((2 * radius + 1,) * 2, np.uint8))
    difference = cv2.GaussianBlur(difference, (0, 0), radius)
    start, end = _FADE_LEVELS
    hard = ((difference - start) / (end - start)).clip(0, 1)[..., None]
    weights = weight + (float(weight > 0.5) - weight) * hard
    return np.asarray(np.rint(after + weights * (before - after)), np.uint8)


def _mask_background(region: MouthRegion, source: SourceFrame) -> MouthRegion:
    """Exclude the background of a video beside the face.

    This includes background of the reference that the warp would copy into the face.
    """
    reference = source.reference
    if source.outline is None or source.pose is None or reference is None or reference.pose is None:
        return region
    yaw_deg = abs(float(head_turn(source.pose, reference.pose)[0]))
    fraction = np.interp(yaw_deg, _CHIN_SPACE_DEG, (_CHIN_SPACE, 0.0))
    room = np.asarray(fraction * region.box_to_image[:, 1], np.float32)
    visibility = region.polygon_mask(_with_chin_space(region.from_frame(source.outline), room))
    outline = _reference_face(source)
    if outline is not None:
        visibility *= region.polygon_mask(_with_chin_space(region.from_frame(outline), room))
    if region.visibility is not None:
        visibility *= region.visibility
    return replace(region, visibility=visibility)


def _reference_face(source: SourceFrame) -> FloatArray | None:
    """Return the convex outline [P, 2] of the reference's face in a frame of a video, if known."""
    reference, transform = source.reference, source.transform
    if source.outline is None or transform is None or reference is None:
        return None
    if reference.outline is None:
        return None
    to_frame = chain_transforms(reference.transform, invert(transform))
    return _hull(transform_points(reference.outline, to_frame))


def _with_chin_space(outline: FloatArray, room: FloatArray) -> FloatArray:
    """Return a convex outline [P, 2], extended by a vector [2] downwards."""
    return _hull(np.concatenate([outline, outline + room]))


def _hull(points: FloatArray) -> FloatArray:
    return np.asarray(cv2.convexHull(points)[:, 0], np.float32)
