"""Calibrations of source videos in the user's cache, so that a video is calibrated only once.

A file holds the adaptation, or the reason why the video cannot be used, but no image and no audio.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import talkinghead
from talkinghead.errors import CheckpointError, MediaError, TalkingHeadError
from talkinghead.models.checkpoint import resolve_checkpoint
from talkinghead.paths import cache_dir
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
from talkinghead.predict.audio.lip_priors.mapped_prior import MappedLipPrior
from talkinghead.predict.audio.speaker_style import SpeakerAdaptation
from talkinghead.predict.options import PredictOptions
from talkinghead.predict.source.face_source import FaceSource
from talkinghead.types import AVSpec

logger = logging.getLogger(__name__)

# Packages whose code a calibration depends on.
_CODE = ("features", "media", "models", "predict", "runtime", "sync")
# A file has up to 0.3 MB.
_MAX_FILES = 200
_REFUSAL, _NAME = "refusal", "{name}"


class CachedPredictor(Protocol):
    """Interface of `LipSyncPredictor` for the identification of a calibration."""

    spec: AVSpec
    options: PredictOptions
    checkpoint: Path | None
    lip_prior: LipPrior | None


def calibrations_folder() -> Path:
    """Return the folder of all calibrations in the user's cache."""
    return cache_dir() / "calibrations"


def calibrate_once(
    predictor: CachedPredictor, source: FaceSource, calibrate: Callable[[], SpeakerAdaptation]
) -> SpeakerAdaptation:
    """Return the calibration of a source from the cache, or calibrate and keep the result.

    Args:
        predictor: the predictor that is calibrated.
        source: a video.
        calibrate: function that calibrates the predictor to the source.

    Raises:
        MediaError: The speech of the source cannot be used, as `calibrate` finds or has found.
    """
    file = _cache_file(predictor, source)
    if file is not None and (kept := _load(file)) is not None:
        if _REFUSAL in kept.report:
            raise MediaError(str(kept.report[_REFUSAL]).replace(_NAME, source.name))
        logger.info("%s: calibration from the cache", source.name)
        return kept
    try:
        adaptation = calibrate()
    except MediaError as error:
        refusal = str(error).replace(source.name, _NAME)
        _keep(file, SpeakerAdaptation(report={_REFUSAL: refusal}))
        raise
    _keep(file, adaptation)
    # The file has less precision: read it, so that all runs have equal frames.
    return (file is not None and _load(file)) or adaptation


def _load(file: Path) -> SpeakerAdaptation | None:
    """Return the content of a file, or None if it is missing or broken."""
    try:
        return SpeakerAdaptation.load(file) if file.is_file() else None
    except (CheckpointError, OSError):
        return None


def _keep(file: Path | None, adaptation: SpeakerAdaptation) -> None:
    """Write a file, and remove the oldest files."""
    if file is None:
        return
    try:
        adaptation.save(file)
        files = sorted(file.parent.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        for oldest in files[:-_MAX_FILES]:
            oldest.unlink(missing_ok=True)
    except (TalkingHeadError, OSError) as error:
        logger.debug("%s: the calibration is not kept: %s", file, error)


def _cache_file(predictor: CachedPredictor, source: FaceSource) -> Path | None:
    """Return the file of a calibration, or None if it is not kept.

    The name is a digest of the content of the video and of the checkpoint, of the lip motion map,
    the options that change the result, the source code, and the version. Predictors with parts
    that cannot be identified, such as a model in memory or a custom lip prior, have no files.
    """
    options = source.options
    parts = (_identify_prior(predictor.lip_prior), _identify_detector(predictor.options.detector))
    if not options.keep_calibration or predictor.checkpoint is None or None in parts:
        return None
    choices = (*options.chosen_faces, *options.excluded_faces)
    photos = [choice.value for choice in choices if isinstance(choice.value, Path)]
    faces = (options.face_select, options.face_index, options.exclude_face)
    selection = (*map(str, faces), options.min_fps)
    model = predictor.options
    motion = (model.backend, model.articulation, model.trained_emotion)
    digest = hashlib.sha256(repr((parts, selection, motion, predictor.spec)).encode())
    digest.update(_code_version().encode())
    try:
        for path in (resolve_checkpoint(predictor.checkpoint), Path(source.name), *photos):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return calibrations_folder() / f"{digest.hexdigest()[:32]}.safetensors"
    except (TalkingHeadError, OSError) as error:
        logger.debug("%s: the calibration is not kept: %s", source.name, error)
        return None


def _identify_prior(prior: LipPrior | None) -> str | None:
    if prior is None:
        return "none"
    return prior.identity if isinstance(prior, MappedLipPrior) else None


def _identify_detector(detector: Any) -> str | None:
    kind = type(detector)
    if detector is None or kind.__module__.startswith("talkinghead.features."):
        values = vars(detector) if detector is not None else {}
        scalars = {k: v for k, v in values.items() if isinstance(v, bool | int | float | str)}
        return f"{kind.__name__} {sorted(scalars.items())}"
    return None


@cache
def _code_version() -> str:
    """Return a digest of the version and the source code."""
    digest = hashlib.sha256(talkinghead.__version__.encode())
    root = Path(talkinghead.__file__).parent
    for package in _CODE:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
