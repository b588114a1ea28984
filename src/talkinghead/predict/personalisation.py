"""Personalisation: adapt to the video of one person, and check the result on held-out parts."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from torch import Tensor

from talkinghead.errors import MediaError, TalkingHeadError, UsageError
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.decoding.video_image import to_array
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.paths import output_file
from talkinghead.predict.audio.calibration import (
    AlignedClip,
    BoolArray,
    SpokenClip,
    clip_scores,
    read_spoken_clip,
)
from talkinghead.predict.audio.speaker_style import SpeakerAdaptation
from talkinghead.predict.decoder_adaptation import MouthFrames, adapt_decoder
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source.face_source import open_face
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.predict.speaker_adaptation import (
    adapt_to_clip,
    adapted_prior,
    describe_adaptation,
    predict_motion,
)
from talkinghead.progress_bar import progress_bar
from talkinghead.value_rules import PositiveFloat, Range

logger = logging.getLogger(__name__)

_CHECK_EVERY = 50
_COMPARABLE_AREA = 0.4
# Duration of the parts into which a video is divided; every n-th part is held out of the fit.
_PART_S = 5.0
# Changes of r, and of the logarithm of the spread, above which the result is worse or better.
_R_TOLERANCE, _MIN_R_GAIN = 0.01, 0.02
_SPREAD_TOLERANCE, _MIN_SPREAD_GAIN = 0.05, 0.1
# Spreads this close to the real one are equally good.
_GOOD_SPREAD = 0.15


@dataclass(frozen=True)
class PersonaliseOptions:
    """Options of `personalise`.

    Attributes:
        max_s: Maximum duration in seconds; the rest of a longer video is not used.
        min_speech_s: Minimum duration of the speech in seconds.
        held_out_every: Interval of the parts of 5 s that are held out of the fit: 4 holds out a
            quarter.

    Raises:
        UsageError: A value is out of range.
    """

    max_s: PositiveFloat = 300.0
    min_speech_s: PositiveFloat = 20.0
    held_out_every: Annotated[int, Range(2)] = 4

    def __post_init__(self) -> None:
        if not 0 < self.min_speech_s <= self.max_s:
            raise UsageError(
                f"min_speech_s={self.min_speech_s:g} and max_s={self.max_s:g}: expected "
                "0 < min_speech_s <= max_s"
            )
        if self.held_out_every < 2:
            raise UsageError(f"held_out_every={self.held_out_every}: expected 2 or more")


def personalise(
    predictor: LipSyncPredictor,
    video: str | Path,
    output: str | Path,
    options: PersonaliseOptions | None = None,
) -> SpeakerAdaptation:
    """Adapt the predictor to the person in a video, and write the adaptation and a report.

    The style, the lip motion map and the last layers of the decoder are fitted to a part of the
    video and measured on the rest; changes that are not better there are left out. The report is
    written beside the output, with the suffix .json.

    Args:
        predictor: the predictor that is adapted, without a personalisation.
        video: one to five minutes in which one person speaks and is visible.
        output: the safetensors file to write, for `PredictOptions.personalisation`.
        options: see `PersonaliseOptions`.

    Raises:
        MediaError: The video cannot be read, has no audio or too little speech, shows several
            faces, or the lips do not follow the audio.
        FaceNotFoundError: There is no face.
        TalkingHeadError: The result is not better on the held-out parts; nothing is written.
        UsageError: The video is a photo, or the predictor has a personalisation.
    """
    output, options = _new_file(output, video), options or PersonaliseOptions()
    mouths = MouthFrames(predictor.spec)
    clip = _read_clip(predictor, video, options.max_s, mouths)
    _require_speech(clip, options.min_speech_s)
    part = (np.arange(len(clip.lips)) / float(predictor.spec.fps) // _PART_S).astype(int)
    held_out = part % options.held_out_every == options.held_out_every - 1
    adaptation, aligned = adapt_to_clip(predictor, clip, ~held_out)
    tested = aligned.only(held_out)
    scores = _motion_scores(predictor, clip, tested, adaptation)
    decoder, errors = _adapt_decoder(predictor, clip, mouths.frames, held_out)
    for name, error in errors.items():
        scores[name]["mouth_l1"] = error
    report = {**adaptation.report, "held_out_s": round(tested.speech_s, 1), **scores}
    logger.info("%s\n%s", describe_adaptation(adaptation), _table(scores))
    if not _has_better_motion(scores):
        if not decoder:
            raise _not_better(scores, str(video))
        logger.info("the lip motion is not better on the held-out parts, and is not changed")
        adaptation = SpeakerAdaptation()
    adaptation = replace(adaptation, report=report, decoder=decoder)
    adaptation.save(output)
    with atomic_path(Path(output).with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    logger.info("wrote %s; use it as personalisation=%s", output, output)
    return adaptation


def _new_file(output: str | Path, video: str | Path) -> Path:
    """Return the path of the output, which must not be that of the video."""
    path = output_file(output, "me.safetensors")
    if path.exists() and Path(video).exists() and path.samefile(video):
        raise UsageError(f"output={output}: the video would be overwritten: choose another name")
    return path


def _read_clip(
    predictor: LipSyncPredictor, video: str | Path, max_s: float, mouths: MouthFrames
) -> SpokenClip:
    if predictor.options.personalisation is not None:
        raise UsageError(
            f"personalisation={predictor.options.personalisation}: personalise adapts the model "
            "itself, so leave the option out"
        )
    source = open_face(video, predictor.detector, predictor.spec, SourceOptions())
    if source.is_photo:
        raise UsageError(f"video={video} is a photo: give a video in which the person speaks")
    with closing(source.play()) as frames:
        one_face = _require_one_face(frames, predictor.detector, str(video))
        return read_spoken_clip(video, mouths.collect(one_face), predictor.spec, max_s)


def _require_one_face(
    frames: Iterable[SourceFrame], detector: FaceDetector, name: str
) -> Iterator[SourceFrame]:
    """Yield the frames; raise a `MediaError` if most checked frames show a second face."""
    checked = several = 0
    for number, frame in enumerate(frames):
        if number % _CHECK_EVERY == 0 and not frame.is_extension:
            boxes = [face.box for face in detector.detect(to_array(frame.image))]
            areas = sorted(box.width * box.height for box in boxes)
            checked += 1
            several += len(areas) > 1 and areas[-2] > _COMPARABLE_AREA * areas[-1]
        if frame.is_extension:
            break
        yield frame
    if several > checked / 2:
        raise MediaError(
            f"{name}: {several} of {checked} checked frames show several faces: give a video in "
            "which only the person is visible"
        )


def _require_speech(clip: SpokenClip, min_speech_s: float) -> None:
    if clip.speech_s < min_speech_s:
        raise MediaError(
            f"{clip.name}: {clip.speech_s:.1f} s of speech with a visible face; expected at least "
            f"{min_speech_s:g} s: give a longer video"
        )


def _motion_scores(
    predictor: LipSyncPredictor,
    clip: SpokenClip,
    tested: AlignedClip,
    adaptation: SpeakerAdaptation,
) -> dict[str, dict[str, float]]:
    """Return the scores of the predicted motion before and after the adaptation."""
    prior = adapted_prior(predictor.lip_prior, adaptation)
    motions = {}
    with progress_bar("checking the held-out parts", logger) as show:
        motions["before"] = predict_motion(predictor, clip)
        show(1, 2)
        motions["after"] = predict_motion(predictor, clip, prior, adaptation.style)
    return {name: clip_scores(tested, motion) for name, motion in motions.items()}


def _has_better_motion(scores: Mapping[str, Mapping[str, float]]) -> bool:
    before, after = scores["before"], scores["after"]
    gain_r = after["r"] - before["r"]
    faults = [max(0.0, abs(math.log(s["spread"])) - _GOOD_SPREAD) for s in (before, after)]
    gain_spread = faults[0] - faults[1]
    is_worse = gain_r < -_R_TOLERANCE or gain_spread < -_SPREAD_TOLERANCE
    return not is_worse and (gain_r >= _MIN_R_GAIN or gain_spread >= _MIN_SPREAD_GAIN)


def _not_better(scores: Mapping[str, Mapping[str, float]], name: str) -> TalkingHeadError:
    before, after = scores["before"], scores["after"]
    return TalkingHeadError(
        f"{name}: not better on the held-out parts (r {before['r']:.2f} to {after['r']:.2f}, "
        f"spread {before['spread']:.2f} to {after['spread']:.2f} of the real one); nothing was "
        "written: give a longer video with clear speech, or use the model as it is"
    )


def _adapt_decoder(
    predictor: LipSyncPredictor, clip: SpokenClip, frames: list[SourceFrame], held_out: BoolArray
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Adapt the decoder (see `adapt_decoder`), if the model runs in PyTorch."""
    if not isinstance(predictor.model, LipSyncGenerator):
        logger.info("the decoder is adapted with backend=torch only")
        return {}, {}
    logger.info("adapting the decoder to %d frames; this takes some minutes", len(frames))
    return adapt_decoder(predictor.model, clip, frames, held_out)


def _table(scores: Mapping[str, Mapping[str, float]]) -> str:
    rows = [f"{'held-out parts':<16}{'before':>8}{'after':>8}"]
    for name in scores["before"]:
        digits = 4 if name == "mouth_l1" else 2
        values = "".join(f"{own[name]:>8.{digits}f}" for own in scores.values())
        rows.append(f"{name:<16}{values}")
    return "\n".join(rows)
