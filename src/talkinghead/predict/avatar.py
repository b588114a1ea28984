"""A face that is found, aligned and encoded once, and speaks as often as one likes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, repeat
from threading import Lock
from typing import TYPE_CHECKING

from talkinghead.errors import FaceNotFoundError
from talkinghead.media.colour import BT709, ColourTags
from talkinghead.predict.source.source_frame import SourceFrame, SourceOptions

if TYPE_CHECKING:
    from talkinghead.predict.predictor import LipSyncPredictor

log = logging.getLogger(__name__)

MAX_BYTES = 2**30
"""Of an avatar's pictures: 15 s of 1280 x 720 at 25 frames/s."""


@dataclass(frozen=True)
class Source:
    """A face to be animated.

    Attributes:
        play: its frames without end, from the first one, each time that it is called.
        name: for messages.
        ready: whether they are there at once, with nothing to decode or to find.
        width, height: of every picture.
        fps: the nominal frame rate.
        options: whose mouth speaks, and how the pictures go on.
        duration_s: about how long they last before they come again; 0 for a photo.
        colour: how a file's pictures stood for colours, and how a new one's may.
    """

    play: Callable[[], Generator[SourceFrame]]
    name: str
    ready: bool
    width: int
    height: int
    fps: Fraction
    options: SourceOptions
    duration_s: Fraction = Fraction(0)
    colour: ColourTags = BT709

    def without_face(self, num_frames: int) -> FaceNotFoundError:
        """The error that none of so many frames shows the face asked for."""
        return FaceNotFoundError(
            f"{self.name}: no face{self.options.wanted} was found in any of {num_frames} frames; "
            "expected one that looks towards the camera: use another video, or crop it closer to "
            "the face"
        )


Picture = tuple[SourceFrame, ...]
"""One picture: a frame for each face in it that speaks."""


@dataclass(frozen=True, eq=False)
class Avatar:
    """A photo, or a video that is looped, ready to speak.

    Nothing in it changes, so it may speak in several predictions, streams and threads at once.

    Attributes:
        predictor: that made it; another cannot use its features.
        source: whose frames come with the features of reference and masked_face.
        pictures: of one pass.
    """

    predictor: LipSyncPredictor
    source: Source
    pictures: tuple[Picture, ...]

    @classmethod
    def of(cls, predictor: LipSyncPredictor, source: Source) -> Avatar:
        """Plays the source once and encodes it.

        Raises:
            FaceNotFoundError: no picture shows the face asked for.
            MediaError: the source cannot be read.
        """
        seen = list(_one_pass(source))
        if not any(frame.reference for frame in chain(*seen)):
            raise source.without_face(len(seen))
        encoded = iter(predictor.mouth_generator().encode(chain(*seen)))
        pictures = tuple(tuple(next(encoded) for _ in picture) for picture in seen)
        if source.options.motion == "none":
            ready = replace(source, play=lambda: _play(pictures, source.options.extend), ready=True)
        else:
            ready = replace(source, play=lambda: _move(source, pictures[0], predictor.detecting))
        return cls(predictor, ready, pictures)


def _one_pass(source: Source) -> Iterator[Picture]:
    """Each picture once, the beginning alone where that is too much to keep."""
    slots: list[SourceFrame] = []
    num_bytes = 0
    with closing(source.play()) as frames:
        for frame in frames:
            if num_bytes and frame.is_extension:
                return
            slots.append(frame)
            if not frame.is_last:
                continue
            yield tuple(slots)
            slots = []
            num_bytes += frame.image.nbytes
            if num_bytes + frame.image.nbytes > MAX_BYTES:
                end_s = float(frame.time_s + frame.duration_s)
                log.warning("%s: its first %.1f s are used; it is longer", source.name, end_s)
                return


def _play(pictures: tuple[Picture, ...], extend: str) -> Generator[SourceFrame]:
    """The pictures, and on as `SourceOptions.extend` says; times run on."""
    time_s = Fraction(0)
    for number, (index, starts_shot) in enumerate(_order(pictures, extend)):
        for frame in pictures[index]:
            yield replace(
                frame,
                time_s=time_s,
                starts_shot=starts_shot,
                is_extension=frame.is_extension or number >= len(pictures),
            )
        time_s += pictures[index][0].duration_s


def _order(pictures: tuple[Picture, ...], extend: str) -> Iterator[tuple[int, bool]]:
    """Which picture comes next, and whether there is a cut before it."""
    last = len(pictures) - 1
    cuts = [picture[0].starts_shot for picture in pictures]
    yield from enumerate(cuts)
    if extend == "hold" or last == 0:
        yield from repeat((last, False))
    while True:
        if extend == "loop":
            yield from enumerate([True, *cuts[1:]])
        else:
            yield from ((index, cuts[index + 1]) for index in reversed(range(last)))
            yield from ((index, cuts[index]) for index in range(1, last + 1))


def _move(source: Source, picture: Picture, detecting: Lock) -> Generator[SourceFrame]:
    """A photo that lives: its pictures are new each time, the references are those encoded."""
    references = {frame.slot: frame.reference for frame in picture}
    with detecting:
        frames = source.play()
    with closing(frames):
        yield from (replace(frame, reference=references[frame.slot]) for frame in frames)
