"""Checks and prediction of the web demo; its page is in `talkinghead.integrations.gradio_demo`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from talkinghead.errors import MediaError, TalkingHeadError, UsageError
from talkinghead.media.container import find_video, open_input
from talkinghead.media.reader import probe, read_image, stream_audio
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.compositing.renderers import (
    FeatherRenderer,
    LaplacianRenderer,
    PoissonRenderer,
    Renderer,
)
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.output.mux import Progress
from talkinghead.predict.output.provenance import Provenance
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import AudioClip, UInt8Array
from talkinghead.value_rules import NonNegativeInt, PositiveInt

Speak = Callable[[str], SpeechStream]
"""A function that speaks a text, such as `speak_text` with a voice."""

RENDERERS: dict[str, Callable[[], Renderer]] = {
    "laplacian": LaplacianRenderer,
    "poisson": PoissonRenderer,
    "feather": FeatherRenderer,
}
"""Renderers that visitors may choose, by name."""

# Photos are scaled down to this side: larger videos are slow to encode and to download.
_MAX_PHOTO_SIDE = 1280
# Videos with higher frame rates take too long to process.
_MAX_FPS = 60


@dataclass(frozen=True)
class DemoOptions:
    """Options of the page, and limits of what visitors may send.

    Attributes:
        visible_label: Initial text of the visible label, which visitors may change.
        max_upload_bytes: Maximum size of a file.
        max_photo_pixels: Maximum size of a photo in pixels; a photo with a side above 1280 pixels
            is scaled down.
        max_video_pixels: Maximum size of a video's frames in pixels.
        max_speech_s: Maximum duration of the speech in seconds.
        max_text_chars: Maximum length of a text in characters (English: about 15 per second).
        max_waiting: Maximum number of waiting requests; they are processed one at a time.
        keep_s: Time in seconds after which uploads and results are deleted.
    """

    visible_label: str = "AI generated"
    max_upload_bytes: PositiveInt = 50_000_000
    max_photo_pixels: PositiveInt = 50_000_000
    max_video_pixels: PositiveInt = 1920 * 1080
    max_speech_s: PositiveInt = 60
    max_text_chars: PositiveInt = 900
    max_waiting: NonNegativeInt = 20
    keep_s: PositiveInt = 3600


@dataclass(frozen=True)
class DemoRequest:
    """The inputs of one video; paths are None where nothing was given."""

    face_kind: Literal["photo", "video"]
    photo: str | None
    video: str | None
    speech_kind: Literal["audio", "text"]
    audio: str | None
    text: str
    articulation: float
    renderer: str
    use_lip_prior: bool
    moves_head: bool
    label: str
    has_consent: bool


class DemoRenderer:
    """A renderer of videos for the visitors of the web demo, one at a time.

    Args:
        predictor: The predictor, whose model, detector and lip prior are used for all videos.
        speak: Function that speaks a text; None if only audio is accepted.
        options: see `DemoOptions`.

    Attributes:
        renderers: the renderers by name.
        default_renderer: name of the predictor's own renderer.
    """

    def __init__(
        self, predictor: LipSyncPredictor, speak: Speak | None, options: DemoOptions
    ) -> None:
        self.predictor, self.speak, self.options = predictor, speak, options
        own = predictor.renderer
        known = (name for name, kind in RENDERERS.items() if type(own) is kind)
        self.default_renderer = next(known, type(own).__name__)
        self.renderers = {**RENDERERS, self.default_renderer: lambda: own}

    def render(self, request: DemoRequest, output: Path, progress: Progress | None = None) -> None:
        """Write the video of a request.

        Raises:
            TalkingHeadError: Something is missing, too large or cannot be used. The message
                contains no path of this machine.
        """
        try:
            face, speech = self._face(request), self._speech(request)
            if not request.has_consent:
                raise UsageError(
                    "consent is missing: tick the box if the person in the photo or video has "
                    "agreed to this, or if it is you"
                )
            self._predictor(request).render(
                face,
                speech,
                output,
                SourceOptions(
                    motion="speech" if request.moves_head else "none", keep_calibration=False
                ),
                provenance=Provenance(label=request.label.strip() or None),
                progress=progress,
            )
        except TalkingHeadError as error:
            raise _without_folders(error, request.photo, request.video, request.audio) from error

    def _predictor(self, request: DemoRequest) -> LipSyncPredictor:
        base = self.predictor
        return LipSyncPredictor(
            base.model,
            base.spec,
            base.options,
            articulation=request.articulation,
            renderer=self.renderers[request.renderer](),
            lip_prior=base.options.lip_prior if request.use_lip_prior else None,
            detector=base.detector,
        )

    def _face(self, request: DemoRequest) -> UInt8Array | Path:
        """Return the image of a photo, or the path of a video."""
        is_photo = request.face_kind == "photo"
        given = request.photo if is_photo else request.video
        if given is None:
            raise UsageError(f"the {request.face_kind} is missing: give one that shows a face")
        with open_input(given) as container:
            stream = find_video(container, given)
            width, height = (stream.width, stream.height) if stream else (0, 0)
        if not width:
            raise MediaError(f"{given}: shows no image; give a {request.face_kind} of a face")
        options = self.options
        limit = options.max_photo_pixels if is_photo else options.max_video_pixels
        if width * height > limit:
            raise MediaError(
                f"{given}: {width} x {height} pixels; a {request.face_kind} may have at most "
                f"{limit:,}: scale it down"
            )
        if is_photo:
            return _shrink(read_image(given), _MAX_PHOTO_SIDE)
        info = probe(given)
        if info.fps is not None and info.fps > _MAX_FPS:
            raise MediaError(
                f"{given}: {float(info.fps):g} frames per second; a video may have at most "
                f"{_MAX_FPS}: convert it"
            )
        return Path(given)

    def _speech(self, request: DemoRequest) -> AudioClip | SpeechStream:
        """Return the recorded speech, or a stream of the spoken text."""
        options = self.options
        if request.speech_kind == "audio":
            if request.audio is None:
                raise UsageError("the speech is missing: record or upload some, or give a text")
            return _read_speech(request.audio, options.max_speech_s)
        if self.speak is None:
            raise UsageError("this demo has no voice: record or upload the speech")
        if len(request.text) > options.max_text_chars:
            raise UsageError(
                f"the text has {len(request.text):,} characters; at most "
                f"{options.max_text_chars:,} are spoken: shorten it"
            )
        return self.speak(request.text)


def _shrink(image: UInt8Array, max_side: int) -> UInt8Array:
    """Return an image that is scaled down to a maximum side in pixels."""
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _read_speech(path: str, max_s: int) -> AudioClip:
    """Read the audio of a file; headers may be wrong, so its samples are counted."""
    rate = probe(path).sample_rate or 16_000
    chunks, num_samples = [], 0
    for chunk in stream_audio(path, rate):
        chunks.append(chunk)
        num_samples += len(chunk)
        if num_samples > max_s * rate:
            raise MediaError(f"{path}: longer than {max_s} s; give a shorter recording")
    return AudioClip(np.concatenate(chunks), rate)


def _without_folders(error: TalkingHeadError, *paths: str | None) -> TalkingHeadError:
    """Return a copy of an error whose message names files without their folders."""
    message = str(error)
    for path in filter(None, paths):
        message = message.replace(path, Path(path).name)
    return type(error)(message)
