"""Generated fields to finished pictures, frame by frame."""

from __future__ import annotations

from talkinghead.predict.generate import GeneratedFrame
from talkinghead.predict.region import (
    MouthRegion,
    Texture,
    box_to_picture,
    mouth_region,
    paint_mouth,
)
from talkinghead.predict.renderer import Renderer
from talkinghead.predict.source import Reference
from talkinghead.predict.stabiliser import MouthStabiliser
from talkinghead.types import AVSpec, FloatArray, UInt8Array


class Compositor:
    """Stabilises, paints and blends; starts afresh at cuts and wherever the face was lost."""

    def __init__(self, renderer: Renderer, spec: AVSpec, stabilise: bool = True) -> None:
        self._renderer = renderer
        self._spec = spec
        self._stabiliser = MouthStabiliser() if stabilise else None
        self._reference: Reference | None = None
        self._texture: Texture | None = None
        self._transform: FloatArray | None = None
        self._region: MouthRegion | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets earlier frames."""
        self._renderer.reset()
        if self._stabiliser:
            self._stabiliser.reset()

    def composite(self, frame: GeneratedFrame) -> tuple[UInt8Array, bool]:
        """The finished picture uint8 [H, W, 3], and whether a mouth was put into it."""
        source, fields = frame.source, frame.fields
        if fields is None or source.transform is None or source.reference is None:
            self.reset()
            return source.image, False
        region = self._find_region(source.image, source.transform)
        if region is None:
            self.reset()
            return source.image, False
        if source.opens_shot or source.reference is not self._reference:
            self.reset()
        time_s = float(source.time_s)
        if self._stabiliser:
            fields = self._stabiliser(fields, time_s)
        mouth = paint_mouth(fields, self._find_texture(source.reference), region)
        return self._renderer.render(source.image, mouth, region, time_s), True

    def _find_region(self, image: UInt8Array, transform: FloatArray) -> MouthRegion | None:
        if transform is not self._transform:
            self._transform = transform
            self._region = mouth_region(transform, image.shape[0], image.shape[1], self._spec)
        return self._region

    def _find_texture(self, reference: Reference) -> Texture:
        if self._texture is None or reference is not self._reference:
            self._reference = reference
            self._texture = Texture(
                reference.image, box_to_picture(reference.transform, self._spec)
            )
        return self._texture
