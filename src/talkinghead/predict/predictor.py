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
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np

from talkinghead.errors import MediaError, UsageError
from talkinghead.features.faces.detector import FaceDetector, build_detector
from talkinghead.media.reader import is_image, probe, read_image
from talkinghead.media.writer import VideoWriter
from talkinghead.models.lipsync.conditioning import choose_emotion
from talkinghead.predict.audio.audio_source import Speech, SpeechChunks, SpeechInput
from talkinghead.predict.audio.lip_prior import LipPrior, LipPriorStream
from talkinghead.predict.avatar import Avatar, Source
from talkinghead.predict.compositing.compositor import Compositor
from talkinghead.predict.compositing.renderers import LaplacianRenderer, Renderer
from talkinghead.predict.mouth_generator import GeneratedFrame, MouthGenerator
from talkinghead.predict.output.mux import Progress, refuse_overwriting, write_video
from talkinghead.predict.output.provenance import Provenance
from talkinghead.predict.pipeline import in_thread
from talkinghead.predict.source.source_frame import SourceFrame, SourceOptions
from talkinghead.predict.source.frame_sources import photo_frames, video_frames
from talkinghead.runtime.generator_backend import GeneratorBackend
from talkinghead.runtime.loading import load_backend, place
from talkinghead.types import AVSpec, UInt8Array

FaceInput: TypeAlias = str | Path | UInt8Array | Avatar
"""A photo or a video, a picture uint8 [H, W, 3] RGB, or an avatar of one of them."""

MAX_ARTICULATION = 3
_QUEUE_FRAMES = 8
# Where frames or speech come by and by.
_SHORT_BATCH = 8
# OpenCV counts a picture's pixels in 16 bits.
_MAX_SIDE = 32_766


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
        self, frames: Generator[tuple[UInt8Array, Fraction, bool]], source: Source
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
    """Makes faces speak. LoadedNetwork once, it serves any number of predictions.

    Of files one at a time; of avatars any number, in as many threads.

    Args:
        model: a `LipSyncGenerator`, which is moved to `device`, or another backend's.
        spec: that the model was trained for.
        device: "auto", "cpu", "cuda" or any other of torch's.
        precision: "auto" (mixed on a GPU, full on a CPU), "32", "16-mixed" or "bf16-mixed".
        detector: finds the face; by default the offline one.
        renderer: puts the mouth into the picture; by default `LaplacianRenderer`.
        stabilise: whether the generated mouths are smoothed over time.
        occlusion_guard: whether what covers the mouth in a video stays before it.
        chunk_frames: how many frames of a photo are generated at once.
        emotion: that a model shows which was trained with some; by default its first.
        articulation: how far the mouth moves, 0 (as in silence) to 3: 1 as the model has learnt it.
        lip_prior: who else tells how lips move, such as `talkinghead.predict.audio.whisper_prior`.

    Attributes:
        detecting: held while a face is found for an avatar: a detector serves one at a time.

    Raises:
        UsageError: the device or the precision is unknown or not to be had, the articulation out
            of range, or the lip_prior works at other rates.
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
        occlusion_guard: bool = True,
        chunk_frames: int = 25,
        emotion: str | None = None,
        articulation: float = 1.0,
        lip_prior: LipPrior | None = None,
    ) -> None:
        if not 0 <= articulation <= MAX_ARTICULATION:
            raise UsageError(
                f"articulation={articulation:g}: choose 0 to {MAX_ARTICULATION}, 1 as it was learnt"
            )
        self.model, self._autocast = place(model, device, precision)
        if emotion is not None:
            choose_emotion(getattr(self.model, "emotion", None), emotion)
        self.device = self.model.device
        self.spec = spec
        self.renderer = renderer or LaplacianRenderer()
        self._detector = detector
        self.detecting = Lock()
        self._stabilise = stabilise
        self._occlusion_guard = occlusion_guard
        self._chunk_frames = chunk_frames
        self._articulation = articulation
        if lip_prior is not None:
            LipPriorStream(lip_prior, spec)  # Says so at once where they do not go together.
        self._listener = lip_prior

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path = "default",
        device: str = "auto",
        precision: str = "auto",
        *,
        backend: str = "auto",
        **options: Any,
    ) -> LipSyncPredictor:
        """The predictor of a `.ckpt` or `.safetensors` file; "default" is the packaged one.

        `backend` and what else `path` may be: see `load_backend`. `options`: the class's others.

        Raises:
            CheckpointError: the file is missing, broken or of another schema.
            DependencyError: the backend's package is missing.
            UsageError: the backend, the device or the precision is not to be had.
        """
        model, spec = load_backend(path, backend)
        return cls(model, spec, device=device, precision=precision, **options)

    def avatar(self, face: str | Path | UInt8Array, options: SourceOptions | None = None) -> Avatar:
        """The face, found and encoded once, for `predict`, `render` and `RealtimeLipSync`.

        Args:
            face: a photo, or a video of seconds: its pictures are kept in memory. A longer one is
                not read beyond `avatar.MAX_BYTES`.
            options: whose mouth speaks, and how a photo or a video is played.

        Raises:
            MediaError: the file cannot be read.
            FaceNotFoundError: no face was found.
        """
        with self.detecting:
            return Avatar.of(self, self._open_face(face, options or SourceOptions()))

    def predict(
        self,
        face: FaceInput,
        audio: SpeechInput,
        options: SourceOptions | None = None,
    ) -> Prediction:
        """The frames of the face saying the speech, as a stream.

        Args:
            face: a photo or a video, a picture uint8 [H, W, 3] RGB, or an avatar.
            audio: a file with sound, mono speech, or speech that is still being made: its first
                frame then comes as soon as enough was heard for it.
            options: whose mouth speaks, and how a photo or a video is played; an avatar has its
                own.

        Returns:
            An iterator of (image, time_s): a photo's at the spec's frame rate, a video's at its
            own. Together they last as long as the speech, within a frame, or as `options` says.
            Close it to stop early.

        Raises:
            MediaError: a file cannot be read (some faults show only on the way).
            FaceNotFoundError: a photo without a face; at the end, a video without any.
            UsageError: an avatar of another predictor, or one and `options`.
        """
        speech = Speech(audio)
        if isinstance(face, Avatar):
            if face.predictor is not self or options is not None:
                raise UsageError(
                    f"the avatar of {face.source.name} comes with its own "
                    f"{'options' if face.predictor is self else 'predictor'}: make another avatar"
                )
            source = face.source
        else:
            source = self._open_face(face, options or SourceOptions())
        return Prediction(self._run(source, source.play(), speech), source)

    def render(
        self,
        face: FaceInput,
        audio: SpeechInput,
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
        refuse_overwriting(output, face.source.name if isinstance(face, Avatar) else face, audio)
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

    def mouth_generator(self) -> MouthGenerator:
        """A new one, for one prediction or stream."""
        return MouthGenerator(
            self.model,
            self.spec,
            self._autocast,
            self._chunk_frames,
            self._articulation,
            self._listener,
        )

    def compositor(self) -> Compositor:
        """A new one, for one prediction or stream."""
        return Compositor(self.renderer, self.spec, self._stabilise, self._occlusion_guard)

    def _open_face(self, face: str | Path | UInt8Array, options: SourceOptions) -> Source:
        still = isinstance(face, np.ndarray) or is_image(face)
        picture = face if isinstance(face, np.ndarray) else read_image(face)
        height, width = picture.shape[:2]
        name = "the picture" if isinstance(face, np.ndarray) else str(face)
        if max(height, width) > _MAX_SIDE:
            raise MediaError(
                f"{name}: {width} x {height} pixels; at most {_MAX_SIDE:,} a side can be painted "
                "on: crop it closer to the face"
            )
        if still:
            play = partial(photo_frames, picture, name, self.detector, self.spec, options)
            is_one_picture = options.motion == "none"
            return Source(play, name, is_one_picture, width, height, self.spec.fps, options)
        info = probe(name)
        fps = info.fps or self.spec.fps
        play = partial(video_frames, Path(name), fps, self.detector, self.spec, options)
        return Source(play, name, False, width, height, fps, options, info.duration_s, info.colour)

    def _run(
        self, source: Source, frames: Generator[SourceFrame], speech: Speech
    ) -> Generator[tuple[UInt8Array, Fraction, bool]]:
        """The stages, chained: closing the last closes them all."""
        decoded = frames if source.ready else in_thread(frames, _QUEUE_FRAMES, "decode")
        comes_at_once = source.ready and speech.estimated_duration_s is not None
        batch_size = self._chunk_frames if comes_at_once else _SHORT_BATCH
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
            raise source.without_face(num_frames)

    def _generate(
        self,
        frames: Generator[SourceFrame],
        speech: Speech,
        batch_size: int,
        options: SourceOptions,
    ) -> Generator[GeneratedFrame]:
        """Until the speech ends and, where it is not to be trimmed, the video."""
        mouths = self.mouth_generator()
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
        compositor = self.compositor()
        with closing(frames):
            for frame in frames:
                image, has_face = compositor.composite(frame)
                if frame.source.is_last:
                    yield image, frame.source.time_s, has_face
