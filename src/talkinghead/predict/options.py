"""Options of prediction, with the defaults of the Python API and of `talkinghead predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from talkinghead.errors import UsageError
from talkinghead.paths import expand_home
from talkinghead.predict.audio.speaker_style import SpeakerStyle, StyleInput, read_style
from talkinghead.predict.source.head.expression.emotions import EmotionInput, read_emotion
from talkinghead.predict.source.selection.face_choice import FaceChoice, read_face_choices
from talkinghead.types import EncodeOptions
from talkinghead.value_rules import NonNegativeInt, Range, Seed, check_fields

if TYPE_CHECKING:
    from talkinghead.features.faces.detector import FaceDetector
    from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
    from talkinghead.predict.compositing.renderers import Renderer

__all__ = ["EncodeOptions", "PredictOptions", "SourceOptions"]

FaceValue: TypeAlias = NonNegativeInt | str | Path
"""A face: its index from the left, a pixel such as "320x180", or a photo of the person."""

# Examples of objects whose names are accepted on the command line only.
_OBJECTS = {
    "renderer": "PoissonRenderer()",
    "detector": "LiteRtDetector()",
    "lip_prior": "DistilledLipPrior()",
}
_MOTIONS = ("none", "idle", "speech")


@dataclass(frozen=True)
class PredictOptions:
    """Options for the runtime, lip motion and compositing of a `LipSyncPredictor`.

    Attributes:
        backend: Runtime: auto, torch, onnx or openvino. The last two run on a CPU; the checkpoint
            is exported once and cached.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps ...
        precision: "auto" (mixed on a GPU, full on a CPU), 32, 16-mixed or bf16-mixed.
        trained_emotion: Emotion of the generator, for models trained with emotions
            (docs/training.md); None uses the first one. For any model, see `SourceOptions.emotion`.
        articulation: Amount of lip motion, 0 to 3: 0 is silence, 1 the predicted motion; above 1
            the opening is expanded around its mean. The motion predicted for voices outside the
            training data is small, hence the default of 2; use 1 for models trained on your own
            corpus.
        style: Style of the speaker's lip motion, or the name of a training speaker's style, such as
            grid_s4 (docs/speakers.md).
        personalisation: File that talkinghead personalise wrote for the speaker; None is the
            speaker of the model.
        stabilise: Smooth the generated mouth over time.
        occlusion_guard: In a video, do not paint over objects in front of the mouth.
        chunk_frames: Number of frames of a photo that are generated at once.
        lip_prior: Second prediction of the lip motion that is blended with the generator's; "auto"
            is Whisper's if it is installed, or else the distilled one.
        phonemes: Constrain the lips where a voice gives its phonemes with times: closed on p, b and
            m, lower lip at the teeth on f and v, rounded on w, u and o.
        renderer: Compositing of the mouth into the image; None is `LaplacianRenderer`.
        detector: Face detector; None is the packaged one.

    Raises:
        UsageError: A value is of another type or out of range.

    Example:
        >>> options = PredictOptions(device="cuda", articulation=1.0)
        >>> predictor = LipSyncPredictor.from_checkpoint("default", options)
    """

    backend: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    device: str = "auto"
    precision: Literal["auto", "32", "16-mixed", "bf16-mixed"] = "auto"
    trained_emotion: str | None = None
    articulation: Annotated[float, Range(0, 3)] = 2.0
    style: StyleInput = field(default_factory=SpeakerStyle)
    personalisation: str | Path | None = None
    stabilise: bool = True
    occlusion_guard: bool = True
    chunk_frames: Annotated[int, Range(1, 1000)] = 25
    lip_prior: LipPrior | Literal["auto"] | None = "auto"
    phonemes: bool = True
    renderer: Renderer | None = None
    detector: FaceDetector | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        read_style(self.style)
        for name, example in _OBJECTS.items():
            if isinstance(value := getattr(self, name), str) and value != "auto":
                raise UsageError(
                    f"{name}={value!r}: expected an object, such as {example}, or None; names are "
                    "for the command line"
                )


@dataclass(frozen=True)
class SourceOptions:
    """Options for the selection of the speaking face and the playback of the photo or video.

    Attributes:
        face_select: "largest"; "index" (see `face_index`); "all"; "speaking", the face of each shot
            of a video that is best in sync with the video's own audio; or a list of faces, each an
            index from the left, a pixel such as 320x180, or a photo of the person. With several
            audio files, the list has the face of each of them; the default is [0, 1, ...].
        face_index: Index of the face, counted from the left from 0; it needs face_select=index.
        exclude_face: Face that stays as it is: an index from the left, a pixel, a photo of the
            person, or a list of them; None excludes no face.
        extend: How a video continues if the speech is longer: "pingpong" (backwards and forwards),
            "hold" (its last frame) or "loop" (from the start, with a cut).
        trim: End with the speech. Otherwise a video continues to its end with a closed mouth.
        motion: Motion of the head in a photo: "speech" for nods, turns and raised brows that follow
            the speech, blinks, and a gaze that stays on the viewer; "idle" for blinks, slight turns
            and this gaze only; "none" for a still head; or "video:FILE" for the head motion, blinks
            and gaze of the person in a video.
        pose: Pose of the head in a photo, relative to the photo: yaw, pitch and roll in degrees, up
            to 15, 10 and 15, or a CSV file with the columns time_s, yaw, pitch and roll; None is
            the pose in the photo.
        emotion: Emotion of the face: neutral, happy, sad, angry, surprised, afraid or disgusted, or
            one of these with an intensity up to 1, such as ("happy", 0.6). It is added to the
            expression in the photo or video.
        expression: Expression of the face, in addition to the emotion: weights of ARKit's
            blendshapes by name, 0 to 1, or a CSV file with the column time_s and one for each
            blendshape; None is the expression in the photo or video.
        seed: Seed of the motion.
        calibrate: "auto" adapts the lip motion to the speech in the first 30 s of a video, if the
            face speaks there and no personalisation is given; "none" does not.
        keep_calibration: Keep the calibration of a video in the user's cache folder, so that it is
            made only once.
        max_side: Longest side of a photo in pixels; a larger photo is scaled down. None keeps its
            size, which some players cannot play.
        min_fps: Minimum frame rate of a video. Images that are shown longer, because the video has
            a low rate or holds an image, are repeated, so that the mouth moves. 0 keeps the frame
            times of the video. Of a video above 120 frames/s, frames are left out.

    Raises:
        UsageError: A value is unknown, or has no effect with another one.
    """

    face_select: (
        Literal["largest", "index", "all", "speaking"] | Sequence[FaceValue | tuple[int, int]]
    ) = "largest"
    face_index: NonNegativeInt = 0
    exclude_face: FaceValue | Sequence[FaceValue | tuple[int, int]] | None = None
    extend: Literal["pingpong", "hold", "loop"] = "pingpong"
    trim: bool = True
    motion: str = "speech"
    pose: tuple[float, float, float] | str | Path | None = None
    emotion: EmotionInput = "neutral"
    expression: Mapping[str, float] | str | Path | None = None
    seed: Seed = 0
    calibrate: Literal["auto", "none"] = "auto"
    keep_calibration: bool = True
    max_side: Annotated[int, Range(64)] | None = 1920
    min_fps: Annotated[float, Range(0, 120)] = 20.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.motion not in _MOTIONS and self.driving_video is None:
            raise UsageError(f"motion={self.motion}: expected {', '.join(_MOTIONS)} or video:FILE")
        read_emotion(self.emotion)
        if self.face_index and self.face_select != "index":
            raise UsageError(
                f"face_index={self.face_index} has no effect with face_select={self.face_select}: "
                "set face_select=index too"
            )
        if set(self.chosen_faces) & set(self.excluded_faces):
            raise UsageError(
                f"exclude_face={self.exclude_face} is also in face_select: exclude another face"
            )

    @property
    def chosen_faces(self) -> tuple[FaceChoice, ...]:
        """The faces that `face_select` lists; none if it is a word."""
        if isinstance(self.face_select, str):
            return ()
        return read_face_choices(self.face_select, "face_select")

    @property
    def excluded_faces(self) -> tuple[FaceChoice, ...]:
        """The faces of `exclude_face`."""
        return read_face_choices(self.exclude_face, "exclude_face")

    def for_voices(self, num_voices: int) -> SourceOptions:
        """Return the options with a face for each of several audio inputs.

        Raises:
            UsageError: `face_select` chooses another number of faces.
        """
        if num_voices == 1:
            return self
        if self.face_select in ("largest", "all"):
            return replace(self, face_select=tuple(range(num_voices)))
        given = len(self.chosen_faces) or f"the word {self.face_select}, not a list"
        if given != num_voices:
            raise UsageError(
                f"audio has {num_voices} files, face_select has {given}: give a face for each "
                "file, such as audio=[a.wav,b.wav] face_select=[0,1]"
            )
        return self

    @property
    def is_animated(self) -> bool:
        """Whether the heads in a photo move."""
        return self.motion != "none" or self.pose is not None or self.has_expression

    @property
    def has_expression(self) -> bool:
        """Whether the faces have another expression than in the photo or video."""
        return self.expression is not None or not read_emotion(self.emotion).is_neutral

    @property
    def driving_video(self) -> Path | None:
        """The video whose motion is repeated; None without one."""
        kind, _, path = str(self.motion).partition(":")
        return Path(expand_home(path)) if kind == "video" and path else None

    @property
    def wanted(self) -> str:
        """Description of the selected face for error messages."""
        if self.face_select == "speaking":
            return " that speaks"
        if chosen := ",".join(map(str, self.chosen_faces)):
            return f" of face_select=[{chosen}]"
        return f" of face_index={self.face_index}" if self.face_select == "index" else ""
