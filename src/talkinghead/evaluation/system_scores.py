"""Scores of any system's videos against real ones: several systems in one run, each a column."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from talkinghead.errors import FaceNotFoundError, MediaError, UsageError
from talkinghead.evaluation import metrics
from talkinghead.evaluation.report.clip_visuals import make_clip_visuals
from talkinghead.evaluation.report.summary import RANK_BY, Report, Scored, drop_unused_visuals
from talkinghead.evaluation.scorers.clip_scorers import ScorerOptions, Scorers
from talkinghead.evaluation.system_clips import MediaClip, pair_videos, read_clip

logger = logging.getLogger(__name__)

REFERENCE = "reference"
"""The column of the real videos, scored against themselves: what is perfect, and what is real."""

Systems = str | Path | Sequence[str | Path] | Mapping[str, str | Path]


@dataclass(frozen=True)
class ScoreOptions(ScorerOptions):
    """How to score files.

    Attributes:
        max_clips: at most so many pairs, by name; all if None.
        max_frames: of each clip, from its start; all if None.
        num_strips: how many of each system's best and worst clips the report shows.
    """

    expert: str | None = "default"
    max_clips: int | None = None
    max_frames: int | None = 250
    num_strips: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_clips", "max_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1 or null, got {value}")
        if self.num_strips < 0:
            raise UsageError(f"num_strips must not be negative, got {self.num_strips}")


@dataclass(frozen=True)
class Skipped:
    """A file that could not be scored."""

    system: str
    clip: str
    error: MediaError | FaceNotFoundError

    def to_dict(self) -> dict[str, str]:
        """What scores.json holds."""
        return {"system": self.system, "clip": self.clip, "reason": str(self.error)}


def score_systems(
    generated: Systems,
    reference: str | Path,
    output_dir: str | Path,
    options: ScoreOptions | None = None,
) -> dict[str, Any]:
    """Scores video files against the real ones of the same names; see docs/metrics.md.

    Args:
        generated: a video or a folder, several of them, or several by name.
        reference: the real video, or the folder of them.
        output_dir: gets scores.json, clips.csv, report.html and strips/*.png.
        options: see `ScoreOptions`.

    Returns:
        What scores.json holds.

    Raises:
        UsageError: a path is missing, or no generated file has the name of a real one.
        CheckpointError: a file to judge by cannot be used.
        DependencyError: what the detector needs is not installed.
        MediaError, FaceNotFoundError: not one pair of files could be scored. (One that cannot is
            counted and named in the report.)
    """
    options = options or ScoreOptions()
    systems = name_systems(generated)
    pairs = {name: pair_videos(path, reference) for name, path in systems.items()}
    scorers = Scorers.build(options)
    keys = sorted(set().union(*pairs.values()))[: options.max_clips]
    clips: list[Scored] = []
    skipped: list[Skipped] = []
    for number, key in enumerate(keys, start=1):
        logger.info("%d of %d: %s", number, len(keys), key)
        files = {name: found[key][0] for name, found in pairs.items() if key in found}
        real = next(found[key][1] for found in pairs.values() if key in found)
        clips += _score_clip(key, {REFERENCE: real, **files}, scorers, options, skipped)
        clips = drop_unused_visuals(clips, options.num_strips)
    if all(clip.column == REFERENCE for clip in clips):
        raise skipped[-1].error
    header = {
        "reference": str(reference),
        "generated": {name: str(path) for name, path in systems.items()},
        "options": asdict(options),
        "skipped": [entry.to_dict() for entry in skipped],
        "left_out": scorers.notes,
    }
    report = Report("systems", header, clips, scorers.spec.fps, reference_column=REFERENCE)
    return report.write(Path(output_dir), options.num_strips)


def name_systems(generated: Systems) -> dict[str, Path]:
    """Each system's name and path; a path without a name is called by its last part.

    Raises:
        UsageError: there is none, or two have the same name.
    """
    if isinstance(generated, str | Path):
        generated = [generated]
    if not isinstance(generated, Mapping):
        named = [(Path(path).resolve().stem, path) for path in generated]
        generated = dict(named)
        if len(generated) < len(named):
            raise UsageError(
                f"two of {', '.join(str(path) for _, path in named)} have the same name; give them "
                "names: generated={a: PATH, b: PATH}"
            )
    if not generated:
        raise UsageError("generated names no file: give a video, a folder or several of them")
    if REFERENCE in generated:
        raise UsageError(f"a system cannot be called {REFERENCE!r}: so the real videos are called")
    return {str(name): Path(path) for name, path in generated.items()}


def _score_clip(
    key: str,
    files: Mapping[str, Path],
    scorers: Scorers,
    options: ScoreOptions,
    skipped: list[Skipped],
) -> list[Scored]:
    """One clip by every system, the real one first; without that there is nothing to compare."""
    clips: list[Scored] = []
    real: MediaClip | None = None
    for system, path in files.items():
        try:
            clip = _read(path, scorers, options, real)
            real = real or clip
            clips.append(_compare(system, key, clip, real, scorers))
        except (MediaError, FaceNotFoundError) as error:
            skipped.append(Skipped(system, key, error))
            logger.warning("%s: left out: %s", system, error)
            if real is None:
                break
    return clips


def _read(
    path: Path, scorers: Scorers, options: ScoreOptions, reference: MediaClip | None
) -> MediaClip:
    return read_clip(
        path,
        scorers.detector,
        scorers.spec,
        audio_features=scorers.input_features,
        max_frames=options.max_frames,
        reference=reference,
    )


def _compare(system: str, key: str, clip: MediaClip, real: MediaClip, scorers: Scorers) -> Scored:
    """All scores of one file."""
    spec, topology = scorers.spec, scorers.detector.topology
    num_frames = min(len(clip), len(real))
    clip, real = clip.first(num_frames), real.first(num_frames)
    heard = real if real.features is not None else clip
    speech = None if heard.features is None else scorers.speech(heard.features, num_frames)
    mouths, target = clip.mouths(spec), real.mouths(spec)
    values = scorers.motion(clip.opening, real.opening, speech)
    values["lmd"] = metrics.landmark_distance(clip.points, real.points, topology)
    values |= scorers.pixels(mouths, target)
    values["jitter"] = metrics.jitter(clip.faces, real.faces, spec.mouth_box)
    values |= scorers.likeness(clip.faces, real.faces)
    # A system's own sound, which may be out of step with its pictures; the real one if it has none.
    sounding = clip if clip.features is not None else real
    if sounding.features is not None and sounding.samples is not None:
        values |= scorers.sync(clip.faces, mouths, sounding.features, sounding.samples)
    takes = {"real": real.faces, system: clip.faces}
    visuals = features = None
    if scorers.inception is not None:
        features = scorers.inception.features(clip.faces), scorers.inception.features(real.faces)
    if system != REFERENCE:
        curves = {"real": real.opening, system: clip.opening}
        visuals = make_clip_visuals(takes, takes, curves, speech, sounding.samples, spec)
        logger.info("%s: r %.2f, on speech %.2f", system, values["r_own"], values.get(RANK_BY, 0))
    facts = {"file": str(clip.path), "num_frames": num_frames}
    return Scored(key, system, facts, values, visuals, features)
