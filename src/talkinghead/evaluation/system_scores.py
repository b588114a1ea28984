"""Scores of the videos of one or several systems against real videos."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from talkinghead.errors import FaceNotFoundError, MediaError, TalkingHeadError, UsageError
from talkinghead.evaluation import metrics
from talkinghead.evaluation.clip_generation import real_mouths
from talkinghead.evaluation.report.clip_visuals import make_clip_visuals
from talkinghead.evaluation.report.results import RANK_BY, ClipResult, Report
from talkinghead.evaluation.report.summary import drop_unused_visuals, write_report
from talkinghead.evaluation.scorers.clip_scorers import ScorerOptions, Scorers
from talkinghead.evaluation.system_clips import MediaClip, pair_videos, read_clip
from talkinghead.evaluation.time_left import TimeLeft
from talkinghead.paths import check_output_folder
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
from talkinghead.value_rules import PositiveInt

logger = logging.getLogger(__name__)

REFERENCE = "reference"
"""Column for the real videos, scored against themselves, with the best possible values."""

Systems = str | Path | Sequence[str | Path] | Mapping[str, str | Path]


@dataclass(frozen=True)
class ScoreOptions(ScorerOptions):
    """Options of `score_systems`.

    Attributes:
        max_clips: Number of pairs to score, in the order of their names; None for all.
    """

    max_clips: PositiveInt | None = None


def score_systems(
    generated: Systems,
    reference: str | Path,
    output_dir: str | Path,
    options: ScoreOptions | None = None,
    lip_prior: LipPrior | None = None,
) -> dict[str, Any]:
    """Score videos against the real videos of the same names (see docs/metrics.md).

    Args:
        generated: a video or a folder, several of them, or a mapping of names to them.
        reference: the real video, or a folder of real videos.
        output_dir: Folder for scores.json, clips.csv, report.html and strips/*.png.
        options: see `ScoreOptions`.
        lip_prior: measures the audio-video offset of each video; None skips these scores.

    Returns:
        The content of scores.json.

    Raises:
        UsageError: a path is wrong, or no generated file has the name of a real one.
        CheckpointError: a scorer's file cannot be used.
        DependencyError: the detector's package is not installed.
        MediaError, FaceNotFoundError: no pair could be scored; the report lists other failures.
    """
    options, output_dir = options or ScoreOptions(), check_output_folder(output_dir)
    systems = name_systems(generated)
    pairs = {name: pair_videos(path, reference) for name, path in systems.items()}
    scorers = Scorers.build(options, lip_prior=lip_prior)
    keys = sorted(set().union(*pairs.values()))[: options.max_clips]
    clips, skipped = list[ClipResult](), list[tuple[str, str, TalkingHeadError]]()
    time_left, left = TimeLeft(len(keys)), ""
    for number, key in enumerate(keys, start=1):
        logger.info("%d of %d: %s %s", number, len(keys), key, left)
        files = {name: found[key][0] for name, found in pairs.items() if key in found}
        real = next(found[key][1] for found in pairs.values() if key in found)
        scored = _score_clip(key, {REFERENCE: real, **files}, scorers, options, skipped)
        clips = drop_unused_visuals([*clips, *scored], options.num_strips)
        left = time_left.after_step()
    if all(clip.column == REFERENCE for clip in clips):
        raise skipped[-1][2]
    header = {
        "reference": str(reference),
        "generated": {name: str(path) for name, path in systems.items()},
        "options": asdict(options),
        "skipped": [{"system": s, "clip": c, "reason": str(error)} for s, c, error in skipped],
        "left_out": scorers.notes,
    }
    report = Report("systems", header, clips, scorers.spec.fps, reference_column=REFERENCE)
    return write_report(report, output_dir, options.num_strips)


def name_systems(generated: Systems) -> dict[str, Path]:
    """Return the path of each system by name; the default name is the last part of the path.

    Raises:
        UsageError: there is no system, or two have the same name.
    """
    if not isinstance(generated, Mapping):
        listed = [generated] if isinstance(generated, str | Path) else generated
        generated = {Path(path).resolve().stem: path for path in listed}
        if len(generated) < len(listed):
            raise UsageError(
                f"two of {', '.join(map(str, listed))} have the same name; give them names: "
                "generated={a: PATH, b: PATH}"
            )
    if not generated:
        raise UsageError("generated names no file: give a video, a folder or several of them")
    for name in (REFERENCE, "real"):
        if name in generated:
            raise UsageError(
                f"a system cannot be named {name!r}: that is the name of the real videos; give it "
                "another one: generated={NAME: PATH}"
            )
    return {str(name): Path(path) for name, path in generated.items()}


def _score_clip(
    key: str,
    files: Mapping[str, Path],
    scorers: Scorers,
    options: ScoreOptions,
    skipped: list[tuple[str, str, TalkingHeadError]],
) -> list[ClipResult]:
    """Score one clip of every system, starting with the real clip, which the others need."""
    clips: list[ClipResult] = []
    real: MediaClip | None = None
    for system, path in files.items():
        try:
            clip = read_clip(
                path,
                scorers.detector,
                scorers.spec,
                audio_features=scorers.input_features,
                max_frames=options.max_frames,
                reference=real,
            )
            real = real or clip
            clips.append(_compare(system, key, clip, real, scorers))
        except (MediaError, FaceNotFoundError) as error:
            skipped.append((system, key, error))
            logger.warning("%s: left out: %s", system, error)
            if real is None:
                break
    return clips


def _compare(
    system: str, key: str, clip: MediaClip, real: MediaClip, scorers: Scorers
) -> ClipResult:
    """Return all scores of one file."""
    spec = scorers.spec
    num_frames = min(len(clip), len(real))
    clip, real = clip.first(num_frames), real.first(num_frames)
    speech_audio = real.audio or clip.audio
    speech = None if speech_audio is None else scorers.speech(speech_audio, num_frames)
    mouths, target = real_mouths(clip.faces, spec), real_mouths(real.faces, spec)
    values = scorers.motion(clip.opening, real.opening, speech)
    pair = clip.points, real.points
    values |= scorers.lip_shape(*pair, values["step_frames"])
    values |= scorers.sound_rates(key, *pair, (clip.opening, real.opening))
    values["lmd"] = metrics.landmark_distance(*pair, scorers.detector.topology)
    values |= scorers.pixels(mouths, target)
    values["jitter"] = metrics.jitter(clip.faces, real.faces, spec.mouth_box)
    values |= scorers.likeness(clip.faces, real.faces)
    # Score the system's own audio, because it may be out of sync with the system's frames.
    audio = clip.audio or real.audio
    if audio is not None:
        values |= scorers.sync(clip.faces, mouths, audio)
        values |= scorers.lip_offset(clip.points, audio)
    versions = {"real": real.faces, system: clip.faces}
    visuals = None
    if system != REFERENCE:
        curves = {"real": real.opening, system: clip.opening}
        samples = None if audio is None else audio.samples
        visuals = make_clip_visuals(versions, versions, curves, speech, samples, spec)
        r, r_speech = values["r_own"], values.get(RANK_BY, math.nan)
        logger.info("%s: r %.2f, during speech %.2f", system, r, r_speech)
    corpus = key.split("/")[0] if "/" in key else None
    facts = {"corpus": corpus, "file": str(clip.path), "num_frames": num_frames}
    features = scorers.inception_features(clip.faces, real.faces)
    return ClipResult(key, system, facts, values, visuals, features)
