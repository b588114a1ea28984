"""Scores of a checkpoint on the clips of a prepared corpus, or on raw videos."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

from talkinghead.data.clip_features import ClipFeatureReader
from talkinghead.data.manifest import SPLITS, ClipEntry, Manifest
from talkinghead.data.preparation.corpus import PrepareOptions, prepare_corpus
from talkinghead.errors import CorpusError, UsageError
from talkinghead.evaluation.audio_dependence import (
    measure_audio_dependence,
    require_audio_dependence,
)
from talkinghead.evaluation.clip_generation import ClipGenerator, Mode
from talkinghead.evaluation.clip_scores import ClipScorer, load_clip
from talkinghead.evaluation.report.summary import RANK_BY, Report, Scored, drop_unused_visuals
from talkinghead.evaluation.scorers.clip_scorers import ScorerOptions, Scorers
from talkinghead.models.checkpoint import load_generator
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.predict.audio.lip_prior import LipPrior

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationOptions(ScorerOptions):
    """How to score.

    Attributes:
        splits: of the corpus.
        max_clips: at most so many of each split, the speakers taking turns; all if None.
        max_frames: of each clip, from its start; all if None.
        mode: "video" (the current frames, masked, with the reference's mouth) or "still" (as for a
            photo: the reference in every frame).
        reference_frame: the frame of each clip that is the reference face.
        num_strips: how many of each group's best and worst clips the report shows.
        require_audio_dependence: fail, after the report is written, where the sound makes no difference.
    """

    splits: Sequence[str] = ("val", "test")
    max_clips: int | None = 12
    max_frames: int | None = 250
    mode: Mode = "video"
    reference_frame: int = 0
    num_strips: int = 2
    require_audio_dependence: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = sorted(set(self.splits) - set(SPLITS))
        if unknown or not self.splits:
            raise UsageError(
                f"splits: got {list(self.splits)}, expected some of {', '.join(SPLITS)}"
            )
        for name in ("max_clips", "max_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1 or null, got {value}")
        if self.reference_frame < 0 or self.num_strips < 0:
            raise UsageError(
                "reference_frame and num_strips must not be negative, "
                f"got {self.reference_frame} and {self.num_strips}"
            )


def evaluate(
    checkpoint: str | Path,
    corpus_dir: str | Path,
    output_dir: str | Path,
    options: EvaluationOptions | None = None,
    lip_prior: LipPrior | None = None,
) -> dict[str, Any]:
    """Rebuilds clips of a corpus and scores them; see docs/metrics.md.

    Speakers who have clips in the corpus's split "train" are the group "seen", the others "unseen".

    Args:
        checkpoint: a generator's file, or "default".
        corpus_dir: a prepared corpus.
        output_dir: gets scores.json, clips.csv, report.html and strips/*.png.
        options: see `EvaluationOptions`.
        lip_prior: who else tells how lips move, beside the checkpoint.

    Returns:
        What scores.json holds.

    Raises:
        CheckpointError: the checkpoint, or a file to judge by, cannot be used.
        CorpusError: the corpus is missing, broken, of another AVSpec, or has no such clip.
        DependencyError: what the detector needs is not installed.
        AudioIndependentModelError: the sound makes no difference (after the report is written).
    """
    options = options or EvaluationOptions()
    corpus_dir = Path(corpus_dir)
    loaded = load_generator(checkpoint)
    manifest = Manifest.load(corpus_dir)
    manifest.require_spec(loaded.spec, corpus_dir)
    entries = _choose_entries(manifest, corpus_dir, options)
    model = cast(LipSyncGenerator, loaded.model.to(options.device))
    generator = ClipGenerator(model, loaded.spec, options.mode, options.reference_frame, lip_prior)
    scorer = ClipScorer(generator, Scorers.build(options, loaded.spec))
    clips = _score(scorer, corpus_dir, manifest, entries, options)
    listening = measure_audio_dependence(clips)
    header = {
        "checkpoint": str(checkpoint),
        "corpus": str(corpus_dir),
        "options": {**asdict(options), "splits": list(options.splits)},
        "lip_prior": None
        if lip_prior is None
        else f"{type(lip_prior).__name__}, {lip_prior.share:g}",
        "listening": listening.to_dict(),
        "left_out": scorer.scorers.notes,
    }
    verdict = (listening.describe(), listening.listens) if listening.is_known else None
    report = Report("groups", header, clips, loaded.spec.fps, verdict=verdict)
    content = report.write(Path(output_dir), options.num_strips)
    if options.require_audio_dependence:
        require_audio_dependence(listening, str(checkpoint))
    return content


def evaluate_video(
    checkpoint: str | Path,
    input_dir: str | Path,
    output_dir: str | Path,
    options: EvaluationOptions | None = None,
    lip_prior: LipPrior | None = None,
) -> dict[str, Any]:
    """Scores a checkpoint on a folder of raw videos, which nobody trained on: all are "unseen".

    They are prepared into `output_dir/corpus`, where a second run finds them. Arguments and errors
    are otherwise those of `evaluate`; the options' `splits` are ignored.
    """
    options = options or EvaluationOptions()
    corpus_dir = Path(output_dir) / "corpus"
    preparation = PrepareOptions(detector=options.detector, val_fraction=0.0, test_fraction=1.0)
    prepare_corpus(input_dir, corpus_dir, load_generator(checkpoint).spec, preparation)
    options = replace(options, splits=("test",))
    return evaluate(checkpoint, corpus_dir, output_dir, options, lip_prior)


def choose_clips(entries: Sequence[ClipEntry], max_clips: int | None) -> list[ClipEntry]:
    """Some clips of a split, always the same: the speakers take turns, in no order of clips."""
    by_speaker: dict[str, list[ClipEntry]] = {}
    for entry in sorted(entries, key=lambda e: hashlib.sha256(e.id.encode()).digest()):
        by_speaker.setdefault(entry.speaker, []).append(entry)
    speakers = [by_speaker[speaker] for speaker in sorted(by_speaker)]
    in_turn = [entry for turn in zip_longest(*speakers) for entry in turn if entry]
    return in_turn[:max_clips]


def choose_other(entry: ClipEntry, manifest: Manifest) -> ClipEntry | None:
    """The clip whose sound is the wrong one: of the same split, if possible by the same speaker.

    Where the split has no other clip, one of another split is taken: its sound was perhaps trained
    on, its pairing with this face was not. None where the corpus has no other clip at all.
    """
    split = sorted(manifest.split(entry.split), key=lambda clip: clip.id)
    pools = (
        [clip for clip in split if clip.speaker == entry.speaker],
        split,
        sorted(manifest.clips, key=lambda clip: clip.id),
    )
    for pool in pools:
        if len(pool) > 1:
            place = next(i for i, clip in enumerate(pool) if clip.id == entry.id)
            return pool[(place + 1) % len(pool)]
    return None


def _choose_entries(
    manifest: Manifest, corpus_dir: Path, options: EvaluationOptions
) -> list[ClipEntry]:
    splits = (manifest.split(split) for split in options.splits)
    entries = [entry for split in splits for entry in choose_clips(split, options.max_clips)]
    if not entries:
        raise CorpusError(
            f"{corpus_dir} has no clip in {', '.join(options.splits)}; choose other splits, or "
            "prepare it with val_fraction, test_fraction or holdout_speakers"
        )
    return entries


def _score(
    scorer: ClipScorer,
    corpus_dir: Path,
    manifest: Manifest,
    entries: Sequence[ClipEntry],
    options: EvaluationOptions,
) -> list[Scored]:
    trained = {clip.speaker for clip in manifest.split("train")}
    reader = ClipFeatureReader(scorer.spec, scorer.audio_features)
    load = partial(load_clip, corpus_dir, reader=reader, max_frames=options.max_frames)
    clips: list[Scored] = []
    for number, entry in enumerate(entries, start=1):
        other = choose_other(entry, manifest)
        group = "seen" if entry.speaker in trained else "unseen"
        scores = scorer.score(load(entry), load(other) if other else None, group)
        clips = drop_unused_visuals([*clips, scores], options.num_strips)
        logger.info(
            "%d of %d: %s r %.2f, on speech %.2f, other sound %.2f",
            number,
            len(entries),
            entry.id,
            scores.values["r_own"],
            scores.values[RANK_BY],
            scores.values.get("r_other", float("nan")),
        )
    return clips
