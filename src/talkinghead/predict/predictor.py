"""Lip-sync prediction: generate a talking video from a checkpoint, a face and speech.

The stages run in threads with short queues between them: decode and track, generate, composite,
encode. Memory does not grow with the duration.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

from talkinghead.errors import UsageError
from talkinghead.features.faces.detector import FaceDetector, build_detector
from talkinghead.media.encoding.patched_image import PatchedImage
from talkinghead.models.lipsync.conditioning import choose_emotion
from talkinghead.paths import output_file
from talkinghead.predict.audio.audio_source import (
    Speech,
    SpeechChunks,
    SpeechInputs,
    cancelling,
    list_speeches,
    longest_duration_s,
    read_speeches,
)
from talkinghead.predict.audio.lip_priors.automatic_prior import resolve_lip_prior
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior, LipPriorStream
from talkinghead.predict.audio.phonemes import PhonemeTrack
from talkinghead.predict.audio.speaker_style import SpeakerAdaptation, SpeakerStyle, read_style
from talkinghead.predict.avatar import Avatar, encode_avatar
from talkinghead.predict.compositing.compositor import Compositor
from talkinghead.predict.compositing.renderers import LaplacianRenderer
from talkinghead.predict.mouth_generator import GeneratedFrame, MouthGenerator, SpeakingFaces
from talkinghead.predict.options import EncodeOptions, PredictOptions, SourceOptions
from talkinghead.predict.output.mux import Progress, check_output, source_video, write_prediction
from talkinghead.predict.output.provenance import Provenance
from talkinghead.predict.pipeline import in_thread
from talkinghead.predict.prediction import Prediction, RenderReport
from talkinghead.predict.pretrained_model import PretrainedModel
from talkinghead.predict.source.face_source import FaceSource, open_face
from talkinghead.predict.source.head.expression.emotion_track import EmotionTrack
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.predict.speaker_adaptation import (
    adapted_model,
    adapted_prior,
    calibrate_source,
    predict_spoken_motion,
)
from talkinghead.runtime.generator_backend import GeneratorBackend
from talkinghead.runtime.loading import load_backend, place
from talkinghead.types import AVSpec, UInt8Array
from talkinghead.value_rules import given_or_default

_Output: TypeAlias = tuple[PatchedImage, Fraction, bool]
_Source: TypeAlias = str | Path | UInt8Array
FaceInput: TypeAlias = _Source | Avatar
"""A photo or a video file, an image uint8 [H, W, 3] RGB, or an avatar."""

# Maximum number and size of the frames in a queue.
_QUEUE_FRAMES, _QUEUE_BYTES = 8, 64 * 2**20
# Batch size if the frames or the speech are not available at once.
_STREAM_BATCH_SIZE = 8


class LipSyncPredictor(PretrainedModel):
    """A predictor that animates faces with speech, loaded once for any number of predictions.

    Safe for concurrent callers: predictions may run in any number of threads, if those of a custom
    detector, lip prior or model may.

    Args:
        model: a `LipSyncGenerator`, which is moved to the device, or another backend.
        spec: the AVSpec that the model was trained for.
        options: see `PredictOptions`.
        **changes: fields of `PredictOptions`, in place of those of `options`.

    Attributes:
        model: the generator on its device.
        spec: its AVSpec.
        options: the options, with the lip prior resolved.
        lip_prior: the lip prior, None for none; adapted to the speaker, if one is given.
        style: style of the lip motion.
        device: the device.
        renderer: compositing of the mouth into the image.

    Raises:
        UsageError: The device or the precision is unknown or not available, an option is out of
            range, or the lip prior has other rates than the model.

    Example:
        >>> predictor = LipSyncPredictor.from_checkpoint("default")
        >>> predictor.render("photo.jpg", "speech.wav", "talking.mp4")
        >>> for image, time_s in predictor.predict("photo.jpg", "speech.wav"):
        ...     show(image)
    """

    def __init__(
        self,
        model: GeneratorBackend,
        spec: AVSpec,
        options: PredictOptions | None = None,
        **changes: Any,
    ) -> None:
        options = replace(options or PredictOptions(), **changes)
        self.lip_prior = resolve_lip_prior(options.lip_prior)
        self.options = replace(options, lip_prior=self.lip_prior)
        self.model, self._autocast = place(model, options.device, options.precision)
        if options.trained_emotion is not None:
            choose_emotion(getattr(self.model, "emotion", None), options.trained_emotion)
        self.device, self.spec = self.model.device, spec
        self.renderer = options.renderer or LaplacianRenderer()
        self.style = read_style(options.style)
        self._origin: LipSyncPredictor | None = None
        if options.personalisation is not None:
            self._adapt(SpeakerAdaptation.load(options.personalisation))
        if self.lip_prior is not None:
            LipPriorStream(self.lip_prior, spec)  # Checks the rates of the lip prior.

    @classmethod
    def from_checkpoint(
        cls, path: str | Path = "default", options: PredictOptions | None = None, **changes: Any
    ) -> LipSyncPredictor:
        """Load a predictor from a checkpoint.

        Args:
            path: A .ckpt or .safetensors file, or a folder written by talkinghead export; "default"
                is the packaged model.
            options: see `PredictOptions`.
            **changes: fields of `PredictOptions`, in place of those of `options`.

        Raises:
            CheckpointError: The file is missing, broken or of another schema.
            DependencyError: The package of the backend is missing.
            UsageError: The backend, the device or the precision is not available.

        Example:
            >>> LipSyncPredictor.from_checkpoint("runs/mine/last.ckpt", articulation=1.0)
        """
        options = replace(options or PredictOptions(), **changes)
        # Resolve the lip prior first, because Whisper is loaded in the background.
        options = replace(options, lip_prior=resolve_lip_prior(options.lip_prior))
        model, spec = load_backend(path, options.backend)
        predictor = cls(model, spec, options)
        predictor.checkpoint = Path(path)
        return predictor

    def avatar(self, face: str | Path | UInt8Array, options: SourceOptions | None = None) -> Avatar:
        """Detect and encode a face once, for `predict`, `render` and `RealtimeLipSync`.

        Args:
            face: A photo or a short video. The images are kept in memory; of a longer video, only
                the first `avatar.MAX_BYTES` of images are used.
            options: see `SourceOptions`.

        Raises:
            MediaError: The file cannot be read.
            FaceNotFoundError: No face was found.
        """
        source = self._open(face, options or SourceOptions())
        avatar = encode_avatar(self, source)
        frames = (frame for faces in avatar.face_frames for frame in faces)
        return replace(avatar, predictor=self._calibrated(source, frames))

    def predict(
        self,
        face: FaceInput,
        audio: SpeechInputs,
        options: SourceOptions | None = None,
        *,
        keep_hdr: bool = True,
    ) -> Prediction:
        """Return a stream of frames in which the face speaks.

        Args:
            face: a photo or a video, an image uint8 [H, W, 3] RGB, or an avatar.
            audio: a file with audio, mono speech in memory, or a stream. With a stream, the first
                frame is returned as soon as enough speech for that frame has arrived. A list has
                the speech of each face that `options.face_select` lists; faces whose speech is
                shorter are silent at the end.
            options: see `SourceOptions`; an avatar has its own.
            keep_hdr: keep the levels of HDR videos for HDR output, which needs more memory.

        Returns:
            An iterator over (image, time_s). A photo is played at the frame rate of the spec, a
            video at its own frame rate. The frames last as long as the speech, to within one frame,
            unless `options` says otherwise. Close the iterator to stop early.

        Raises:
            MediaError: A file cannot be read (possibly during iteration).
            FaceNotFoundError: The photo has no face; at the end, no frame of the video has one.
            UsageError: The avatar was made by another predictor, or `options` was also given; or
                the numbers of audio inputs and faces differ.
        """
        speeches = read_speeches(audio)
        if isinstance(face, Avatar):
            predictor, source = self._own_predictor(face), face.source
            if predictor is None or options is not None:
                fault = "has its own options" if predictor else "belongs to another predictor"
                raise UsageError(f"the avatar of {source.name} {fault}: make another avatar")
            if source.options.for_voices(len(speeches)) != source.options:
                raise UsageError(
                    f"the avatar of {source.name} has no list of {len(speeches)} faces: make an "
                    "avatar with SourceOptions(face_select=[0, 1])"
                )
        else:
            options = given_or_default(options, SourceOptions, "options").for_voices(len(speeches))
            source = self._open(face, options, keep_hdr)
            with closing(source.play()) as frames:
                predictor = self._calibrated(source, frames)
        return Prediction(predictor._run(source, speeches), source)

    def render(
        self,
        face: FaceInput,
        audio: SpeechInputs,
        output: str | Path,
        options: SourceOptions | None = None,
        *,
        encode: EncodeOptions | None = None,
        provenance: Provenance | None = None,
        tags: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> RenderReport:
        """Write the prediction and its audio to a file, which appears only when complete.

        Args:
            face: as for `predict`.
            audio: as for `predict`.
            output: The file to write; its folder is created. See `make_jobs` for the formats.
            options: see `SourceOptions`; an avatar has its own.
            encode: quality and speed of the video encoder.
            provenance: marks of AI generation; by default a comment in the metadata.
            tags: further metadata.
            progress: called after each frame with the numbers of written and of all frames.

        Raises:
            MediaError: A file cannot be read or written.
            FaceNotFoundError: No face was found.
            UsageError: The output would overwrite an input, or its format cannot be written.
        """
        output, encode = output_file(output), given_or_default(encode, EncodeOptions, "encode")
        provenance = given_or_default(provenance, Provenance, "provenance")
        source = face.source.name if isinstance(face, Avatar) else face
        check_output(output, provenance, source, *list_speeches(audio), encode.background)
        if isinstance(face, Avatar) and encode.hdr == "keep":
            face.warn_of_missing_hdr()
        with self.predict(face, audio, options, keep_hdr=encode.hdr == "keep") as prediction:
            return write_prediction(
                prediction,
                audio,
                output,
                encode=encode,
                provenance=provenance,
                tags=tags or {},
                progress=progress,
                video=source_video(face),
            )

    @property
    def origin(self) -> LipSyncPredictor:
        """The predictor that was calibrated to give this one, or this predictor."""
        return self._origin or self

    @cached_property
    def detector(self) -> FaceDetector:
        """The face detector, built when it is first needed."""
        return self.options.detector or build_detector()

    def mouth_generator(
        self,
        lip_prior: LipPrior | None = None,
        phonemes: PhonemeTrack | None = None,
        style: SpeakerStyle | None = None,
        emotions: EmotionTrack | None = None,
    ) -> MouthGenerator:
        """Return a new mouth generator, for one prediction or stream.

        `lip_prior` and `style` replace the predictor's own. `phonemes` and `emotions` are those of
        the speech; without them, add them to the same attributes of the mouth generator.
        """
        return MouthGenerator(
            self.model,
            self.spec,
            self._autocast,
            self.options.chunk_frames,
            self.options.articulation,
            lip_prior or self.lip_prior,
            style or self.style,
            phonemes=phonemes,
            uses_phonemes=self.options.phonemes,
            emotions=emotions,
        )

    def compositor(self) -> Compositor:
        """Return a new compositor, for one prediction or stream."""
        options = self.options
        return Compositor(self.renderer, self.spec, options.stabilise, options.occlusion_guard)

    def _open(self, face: _Source, options: SourceOptions, keep_hdr: bool = True) -> FaceSource:
        place = face, self.detector, self.spec, options
        predict_lips = partial(predict_spoken_motion, self.model, self.lip_prior, self.spec)
        return open_face(*place, keep_hdr=keep_hdr, predict_lips=predict_lips)

    def _own_predictor(self, avatar: Avatar) -> LipSyncPredictor | None:
        """Return the predictor of an avatar that this predictor made; None for other avatars."""
        predictor = avatar.predictor
        if not isinstance(predictor, LipSyncPredictor) or predictor.origin is not self.origin:
            return None
        return predictor

    def _calibrated(self, source: FaceSource, frames: Iterable[SourceFrame]) -> LipSyncPredictor:
        """Return a predictor adapted to the speaker of a source, or this one."""
        is_given = self.options.personalisation is not None
        if is_given or (adaptation := calibrate_source(self, source, frames)) is None:
            return self
        calibrated = copy.copy(self)
        calibrated._origin = self.origin
        calibrated._adapt(adaptation)
        return calibrated

    def _adapt(self, adaptation: SpeakerAdaptation) -> None:
        self.style = adaptation.style.then(read_style(self.options.style))
        self.lip_prior = adapted_prior(self.lip_prior, adaptation)
        self.model = adapted_model(self.model, adaptation)

    def _run(self, source: FaceSource, speeches: Sequence[Speech]) -> Generator[_Output]:
        """Run all stages; closing this generator closes the stages."""
        duration_s = longest_duration_s(speeches)
        num_fitting = _QUEUE_BYTES // (3 * source.width * source.height)
        depth = min(_QUEUE_FRAMES, max(2, num_fitting))
        frames = source.play(duration_s)
        decoded = frames if source.is_immediate else in_thread(frames, depth, "decode")
        is_known = source.is_immediate and duration_s is not None
        batch_size = self.options.chunk_frames if is_known else min(_STREAM_BATCH_SIZE, 2 * depth)
        seen: set[int] = set()
        mouths = self._generate(decoded, speeches, batch_size, source.options, seen)
        # The queue holds one batch, so that one is generated while another is composited.
        generated = in_thread(mouths, batch_size, "generate")
        composited = in_thread(self._composite(generated), depth, "composite")
        num_frames, any_face = 0, False
        with closing(composited), cancelling(speeches):
            for image, time_s, has_face in composited:
                num_frames += 1
                any_face |= has_face
                yield image, time_s, has_face
        if not any_face:
            raise source.missing_face(num_frames)
        if missing := sorted(set(range(len(source.options.chosen_faces))) - seen):
            raise source.missing_choices(missing, num_frames)

    def _generate(
        self,
        frames: Generator[SourceFrame],
        speeches: Sequence[Speech],
        batch_size: int,
        options: SourceOptions,
        seen: set[int],
    ) -> Generator[GeneratedFrame]:
        """Yield frames until the speech ends or, without `trim`, until speech and video end.

        The slots of the faces that were seen are added to `seen`.
        """
        batch: list[SourceFrame] = []
        sample_rate = self.spec.sample_rate
        is_padded = not options.trim or len(speeches) > 1
        with ExitStack() as stack:
            chunks = [stack.enter_context(closing(s.chunks(sample_rate))) for s in speeches]
            stack.enter_context(closing(frames))
            faces = SpeakingFaces(
                [self.mouth_generator(phonemes=s.phonemes, emotions=s.emotions) for s in speeches],
                [SpeechChunks(chunk, sample_rate, endless=is_padded) for chunk in chunks],
            )
            for frame in frames:
                faces.pull_until(frame.middle_s)
                duration_s = faces.duration_s
                is_over = duration_s is not None and frame.time_s >= duration_s
                if is_over and (options.trim or frame.is_extension):
                    break
                if frame.transform is not None or frame.is_covered:
                    seen.add(frame.slot)
                batch.append(frame)
                if len(batch) == batch_size:
                    yield from faces.generate(batch)
                    batch = []
            yield from faces.generate(batch)

    def _composite(self, frames: Generator[GeneratedFrame]) -> Generator[_Output]:
        compositor = self.compositor()
        with closing(frames):
            for frame in frames:
                image, has_face = compositor.composite_patches(frame)
                if frame.source.is_last:
                    yield image, frame.source.time_s, has_face
