"""A checkpoint, a face and speech to a talking video, as streams.

Four stages run side by side with short queues between them: decode (and track) | generate |
    composite | encode. No stage
keeps more than it needs, so an hour's video takes the memory of a minute's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from talkinghead.errors import FaceNotFoundError
from talkinghead.features.faces.detector import FaceDetector, build_detector
from talkinghead.media.colour import BT709, ColourTags
from talkinghead.media.reader import is_image, probe, read_image
from talkinghead.media.writer import VideoWriter
from talkinghead.predict.backend import GeneratorBackend
from talkinghead.predict.compositor import Compositor
from talkinghead.predict.generate import GeneratedFrame, MouthGenerator
from talkinghead.predict.loading import load_backend, place
from talkinghead.predict.output import Progress, refuse_overwriting, write_video
from talkinghead.predict.provenance import Provenance
from talkinghead.predict.renderer import FeatherRenderer, Renderer
from talkinghead.predict.source import SourceFrame, SourceOptions, photo_frames, video_frames
from talkinghead.predict.speech import Speech, SpeechChunks
from talkinghead.predict.stream import in_thread
from talkinghead.types import AudioClip, AVSpec, UInt8Array

_QUEUE_FRAMES = 8
_VIDEO_BATCH = 8


@dataclass(frozen=True)
class RenderReport:
    """What was written; frames without a face were passed through untouched."""

    path: Path
    num_frames: int
    num_frames_without_face: int
    duration_s: Fraction
    fps: Fraction


class Prediction(Iterator[tuple[UInt8Array, Fraction]]):
    """The frames of one prediction: an iterator of (image uint8 [height, width, 3] RGB, time_s).

    Attributes:
        width, height: of every frame.
        fps: the source's (nominal) frame rate.
        colour: how a file's pictures stood for colours, and how a new one's may.
        video_s: about how long the pictures go on at least, where they do not end with the speech.
        num_frames, num_frames_without_face: how many came so far, and how many of them passed
            untouched.
    """

    def __init__(
        self, frames: Generator[tuple[UInt8Array, Fraction, bool]], source: _Source
    ) -> None:
        self._frames = frames
        self.width, self.height, self.fps = source.width, source.height, source.fps
        self.colour = source.colour
        self.video_s = None if source.options.trim else source.duration_s
        self.num_frames = self.num_frames_without_face = 0

    def __next__(self) -> tuple[UInt8Array, Fraction]:
        image, time_s, has_face = next(self._frames)
        self.num_frames += 1
        self.num_frames_without_face += not has_face
        return image, time_s

    def close(self) -> None:
        """Stops every stage. Called by itself at the end, and when used as a context manager."""
        self._frames.close()

    def __enter__(self) -> Prediction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class LipSyncPredictor:
    """Makes faces speak. Loaded once, it serves any number of predictions, one at a time.

    Args:
        model: a `LipSyncGenerator`, which is moved to `device`, or another backend's.
        spec: that the model was trained for.
        device: "auto", "cpu", "cuda" or any other of torch's.
        precision: "auto" (mixed on a GPU, full on a CPU), "32", "16-mixed" or "bf16-mixed".
        detector: finds the face; by default the offline one.
        renderer: puts the mouth into the picture; by default `FeatherRenderer`.
        stabilise: whether the generated mouths are smoothed over time.
        chunk_frames: how many frames of a photo are generated at once.

    Raises:
        UsageError: the device or the precision is unknown or not to be had.
    """

    def __init__(
        self,
        model: GeneratorBackend,
        spec: AVSpec,
        *,
        device: str = "auto",
        precision: str = "auto",
        detector: FaceDetector | None = None,
        renderer: Renderer | None = None,
        stabilise: bool = True,
        chunk_frames: int = 25,
    ) -> None:
        self.model, self._autocast = place(model, device, precision)
        self.device = self.model.device
        self.spec = spec
        self.renderer = renderer or FeatherRenderer()
        self._detector = detector
        self._stabilise = stabilise
        self._chunk_frames = chunk_frames

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path = "default",
        device: str = "auto",
        precision: str = "auto",
        *,
        backend: str = "auto",
        detector: FaceDetector | None = None,
        renderer: Renderer | None = None,
        stabilise: bool = True,
        chunk_frames: int = 25,
    ) -> LipSyncPredictor:
        """The predictor of a `.ckpt` or `.safetensors` file; "default" is the packaged one.

        `backend` and what else `path` may be: see `load_backend`.

        Raises:
            CheckpointError: the file is missing, broken or of another schema.
            DependencyError: the backend's package is missing.
            UsageError: the backend, the device or the precision is not to be had.
        """
        model, spec = load_backend(path, backend)
        return cls(
            model,
            spec,
            device=device,
            precision=precision,
            detector=detector,
            renderer=renderer,
            stabilise=stabilise,
            chunk_frames=chunk_frames,
        )

    def predict(
        self,
        face: str | Path | UInt8Array,
        audio: str | Path | AudioClip,
        options: SourceOptions | None = None,
    ) -> Prediction:
        """The frames of the face saying the speech, as a stream.

        Args:
            face: a photo or a video, or a picture uint8 [H, W, 3] RGB.
            audio: a file with sound, or mono speech.
            options: whose mouth speaks, and how a photo or a video is played.

        Returns:
            An iterator of (image, time_s): a photo's at the spec's frame rate, a video's at its
            own. Together they last as long as the speech, within a frame, or as `options` says.
            Close it to stop early.

        Raises:
            MediaError: a file cannot be read (some faults show only on the way).
            FaceNotFoundError: a photo without a face; at the end, a video without any.
        """
        speech = Speech(audio)
        source = self._open_face(face, options or SourceOptions())
        return Prediction(self._run(source, speech), source)

    def render(
        self,
        face: str | Path | UInt8Array,
        audio: str | Path | AudioClip,
        output: str | Path,
        options: SourceOptions | None = None,
        *,
        crf: int = 18,
        preset: str = "veryfast",
        provenance: Provenance | None = None,
        tags: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> RenderReport:
        """Writes the prediction and its sound to an MP4 file, which appears whole or not at all.

        Args:
            face: as for `predict`.
            audio: as for `predict`.
            output: the file; its folder is made.
            options: as for `predict`.
            crf: quality of the H.264 stream, 0 (lossless) to 51.
            preset: the encoder's.
            provenance: how the file says that it was made by AI; by default in its metadata.
            tags: more for the metadata.
            progress: told about every frame.

        Raises:
            MediaError: a file cannot be read or written.
            FaceNotFoundError: no face was found.
            UsageError: the output would overwrite an input.
        """
        output = Path(output)
        refuse_overwriting(output, face, audio)
        provenance = provenance or Provenance()
        speech = Speech(audio)
        with self.predict(face, audio, options) as prediction:
            writer = VideoWriter(
                output,
                prediction.width,
                prediction.height,
                prediction.fps,
                speech.sample_rate,
                crf=crf,
                preset=preset,
                metadata={**provenance.tags, **(tags or {})},
                colour=prediction.colour,
                seal=provenance.seal,
            )
            with writer:
                duration_s = write_video(
                    prediction, speech, writer, progress, provenance.label, prediction.video_s
                )
        num_frames, untouched = prediction.num_frames, prediction.num_frames_without_face
        return RenderReport(output, num_frames, untouched, duration_s, prediction.fps)

    @property
    def detector(self) -> FaceDetector:
        """The face detector, built when it is first needed."""
        if self._detector is None:
            self._detector = build_detector()
        return self._detector

    def _open_face(self, face: str | Path | UInt8Array, options: SourceOptions) -> _Source:
        still = isinstance(face, np.ndarray) or is_image(face)
        picture = face if isinstance(face, np.ndarray) else read_image(face)
        height, width = picture.shape[:2]
        name = "the picture" if isinstance(face, np.ndarray) else str(face)
        if still:
            frames = photo_frames(picture, name, self.detector, self.spec, options)
            is_one_picture = options.motion == "none"
            return _Source(frames, name, is_one_picture, width, height, self.spec.fps, options)
        info = probe(name)
        fps = info.fps or self.spec.fps
        frames = video_frames(Path(name), fps, self.detector, self.spec, options)
        return _Source(
            frames, name, False, width, height, fps, options, info.duration_s, info.colour
        )

    def _run(self, source: _Source, speech: Speech) -> Generator[tuple[UInt8Array, Fraction, bool]]:
        """The stages, chained: closing the last closes them all."""
        decoded = (
            source.frames if source.still else in_thread(source.frames, _QUEUE_FRAMES, "decode")
        )
        batch_size = self._chunk_frames if source.still else _VIDEO_BATCH
        # A batch comes at once: so much room lets the next be generated while it is composited.
        mouths = self._generate(decoded, speech, batch_size, source.options)
        generated = in_thread(mouths, batch_size, "generate")
        composited = in_thread(self._composite(generated), _QUEUE_FRAMES, "composite")
        num_frames, any_face = 0, False
        with closing(composited):
            for image, time_s, has_face in composited:
                num_frames += 1
                any_face |= has_face
                yield image, time_s, has_face
        if not any_face:
            raise FaceNotFoundError(
                f"{source.name}: no face{source.options.wanted} was found in any of {num_frames} "
                "frames; expected one that looks towards the camera: use another video, or crop it "
                "closer to the face"
            )

    def _generate(
        self,
        frames: Generator[SourceFrame],
        speech: Speech,
        batch_size: int,
        options: SourceOptions,
    ) -> Generator[GeneratedFrame]:
        """Until the speech ends and, where it is not to be trimmed, the video."""
        mouths = MouthGenerator(self.model, self.spec, self._autocast, self._chunk_frames)
        batch: list[SourceFrame] = []
        sample_rate = self.spec.sample_rate
        with closing(speech.chunks(sample_rate)) as chunks, closing(frames):
            samples = SpeechChunks(chunks, sample_rate, goes_on=not options.trim)
            for frame in frames:
                mouths.tokens.listen(samples, frame.middle_s)
                is_over = samples.duration_s is not None and frame.time_s >= samples.duration_s
                if is_over and (options.trim or frame.is_extension):
                    break
                batch.append(frame)
                if len(batch) == batch_size:
                    yield from mouths.generate(batch)
                    batch = []
            yield from mouths.generate(batch)

    def _composite(
        self, frames: Generator[GeneratedFrame]
    ) -> Generator[tuple[UInt8Array, Fraction, bool]]:
        compositor = Compositor(self.renderer, self.spec, self._stabilise)
        with closing(frames):
            for frame in frames:
                image, has_face = compositor.composite(frame)
                if frame.source.is_last:
                    yield image, frame.source.time_s, has_face


@dataclass(frozen=True)
class _Source:
    """A face to be animated: its frames without end, and whether they all are one photo."""

    frames: Generator[SourceFrame]
    name: str
    still: bool
    width: int
    height: int
    fps: Fraction
    options: SourceOptions
    duration_s: Fraction = Fraction(0)
    colour: ColourTags = BT709
