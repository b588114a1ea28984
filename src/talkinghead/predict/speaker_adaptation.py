"""Adaptation of a predictor to the speaker of a video: calibration and personalisation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

import torch

from talkinghead.errors import MediaError, UsageError
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.predict.audio.calibration import (
    AlignedClip,
    BoolArray,
    SpokenClip,
    adapt_map,
    align_clip,
    estimate_style,
    read_spoken_clip,
)
from talkinghead.predict.audio.lip_priors.lip_curve import LipCurve
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
from talkinghead.predict.audio.lip_priors.mapped_prior import MappedLipPrior
from talkinghead.predict.audio.speaker_style import SpeakerAdaptation, SpeakerStyle, describe
from talkinghead.predict.decoder_adaptation import with_decoder_tensors
from talkinghead.predict.mouth_generator import MouthGenerator
from talkinghead.predict.source.calibration_cache import CachedPredictor, calibrate_once
from talkinghead.predict.source.face_source import FaceSource
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.progress_bar import progress_bar
from talkinghead.runtime.generator_backend import GeneratorBackend
from talkinghead.types import AVSpec, FloatArray

logger = logging.getLogger(__name__)

MAX_CALIBRATION_S = 30.0
"""Duration of the start of a source video that calibration uses, in seconds."""


class AdaptablePredictor(CachedPredictor, Protocol):
    """Interface of `LipSyncPredictor` for the adaptation to a speaker."""

    def mouth_generator(
        self, lip_prior: LipPrior | None = None, *, style: SpeakerStyle | None = None
    ) -> MouthGenerator:
        """Return a new mouth generator; the arguments replace the predictor's own."""


def calibrate_source(
    predictor: AdaptablePredictor, source: FaceSource, frames: Iterable[SourceFrame]
) -> SpeakerAdaptation | None:
    """Adapt a predictor to the speech of a source video, and log the result.

    Args:
        predictor: the predictor.
        source: the source.
        frames: its frames, from the start; they are not read if the cache has the calibration.

    Returns:
        The adaptation, or None if the source is a photo or its speech cannot be used.
    """
    if source.is_photo or source.options.calibrate == "none":
        return None
    if source.options.face_select == "all" or len(source.options.chosen_faces) > 1:
        logger.info("%s: not calibrated, because several faces speak", source.name)
        return None

    def calibrate() -> SpeakerAdaptation:
        clip = read_spoken_clip(source.name, frames, predictor.spec, MAX_CALIBRATION_S)
        return adapt_to_clip(predictor, clip)[0]

    try:
        adaptation = calibrate_once(predictor, source, calibrate)
    except MediaError as error:
        logger.info("%s; the lip motion is not calibrated", error)
        return None
    logger.info("%s: calibrated: %s", source.name, describe_adaptation(adaptation))
    return adaptation


def adapt_to_clip(
    predictor: AdaptablePredictor, clip: SpokenClip, used: BoolArray | None = None
) -> tuple[SpeakerAdaptation, AlignedClip]:
    """Fit the style, and with enough speech the lip motion map, to a clip.

    Args:
        predictor: the predictor.
        clip: the clip.
        used: frames for the fit, bool [T]; None uses all frames.

    Returns:
        The adaptation, and the clip with all its frames.

    Raises:
        MediaError: There is too little speech, or the lips do not follow the audio.
    """
    with progress_bar("adapting the lip motion", logger) as show:
        return _fit(predictor, clip, used, show)


def _fit(
    predictor: AdaptablePredictor,
    clip: SpokenClip,
    used: BoolArray | None,
    show: Callable[[float, float], None],
) -> tuple[SpeakerAdaptation, AlignedClip]:
    """Do the work of `adapt_to_clip`, and show its progress in steps of about equal length."""
    predicted = predict_motion(predictor, clip)
    show(1, 3)
    aligned = align_clip(clip, predicted)
    fitted = aligned if used is None else aligned.only(used)
    report: dict[str, float] = {
        "speech_s": round(fitted.speech_s, 1),
        "audio_late_frames": round(aligned.offset.frames, 2),
        "correlation": round(aligned.offset.correlation, 3),
    }
    weight = bias = None
    prior = predictor.lip_prior
    if isinstance(prior, MappedLipPrior):
        inputs = prior.recording_inputs(clip.samples, len(clip.lips))
        own = prior.motion_of(torch.from_numpy(inputs).float()).unflatten(-1, (20, 2)).numpy()
        if (change := adapt_map(fitted, inputs, own)) is not None:
            weight = prior.map_tensors[0] + change.weight
            bias = prior.map_tensors[1] + change.bias
            report |= {"ridge": change.ridge, "map_gain_r": round(change.gain_r, 3)}
            show(2, 3)
            predicted = predict_motion(predictor, clip, prior.with_map(weight, bias))
    style = estimate_style(fitted, predicted)
    return SpeakerAdaptation(style, weight, bias, report), aligned


def adapted_prior(
    prior: LipPrior | None, adaptation: SpeakerAdaptation, name: str = "personalisation"
) -> LipPrior | None:
    """Return a lip prior with the map of an adaptation, or the prior itself if there is none.

    Raises:
        UsageError: The map was fitted for another lip prior.
    """
    if adaptation.weight is None or adaptation.bias is None:
        return prior
    if not isinstance(prior, MappedLipPrior):
        logger.warning(
            "%s: its lip motion map is used with lip_prior=whisper or distilled only", name
        )
        return prior
    if prior.map_tensors[0].shape != adaptation.weight.shape:
        raise UsageError(
            f"{name}: its lip motion map has {len(adaptation.weight)} inputs, that of the lip "
            f"prior has {len(prior.map_tensors[0])}: use the lip prior of the personalisation"
        )
    return prior.with_map(adaptation.weight, adaptation.bias)


def adapted_model(model: GeneratorBackend, adaptation: SpeakerAdaptation) -> GeneratorBackend:
    """Return a generator with the decoder layers of an adaptation, or `model` if there are none.

    Raises:
        CheckpointError: The layers were adapted for another model.
    """
    if not adaptation.decoder:
        return model
    if not isinstance(model, LipSyncGenerator):
        logger.warning("personalisation: its decoder layers are used with backend=torch only")
        return model
    return with_decoder_tensors(model, adaptation.decoder)


def predict_motion(
    predictor: AdaptablePredictor,
    clip: SpokenClip,
    lip_prior: LipPrior | None = None,
    style: SpeakerStyle | None = None,
) -> FloatArray:
    """Return the lip motion [T, 20, 2] predicted for the audio of a clip, without rendering."""
    return _motion_of(predictor.mouth_generator(lip_prior, style=style or SpeakerStyle()), clip)


def predict_spoken_motion(
    model: GeneratorBackend, lip_prior: LipPrior | None, spec: AVSpec, clip: SpokenClip
) -> FloatArray:
    """Return the lip motion [T, 20, 2] with which the audio of a clip is spoken.

    In contrast to `predict_motion`, the articulation is 1, and a `LipCurve` is ignored.
    """
    used = None if isinstance(lip_prior, LipCurve) else lip_prior
    return _motion_of(MouthGenerator(model, spec, lip_prior=used), clip)


def _motion_of(mouths: MouthGenerator, clip: SpokenClip) -> FloatArray:
    mouths.tokens.push(clip.samples)
    mouths.tokens.finish()
    motion, _ = mouths.lip_motion(clip.times_s, clip.reference)
    return motion


def describe_adaptation(adaptation: SpeakerAdaptation) -> str:
    """Return a line with the style and the measurements of an adaptation."""
    report = adaptation.report
    text = (
        f"{describe(adaptation.style)}; {report['speech_s']} s of speech, audio late by "
        f"{report['audio_late_frames']:+.1f} frames, correlation {report['correlation']:.2f}"
    )
    if "map_gain_r" not in report:
        return text
    return f"{text}; lip motion map adapted, correlation {report['map_gain_r']:+.3f}"
