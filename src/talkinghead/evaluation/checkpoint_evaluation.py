"""Evaluation of a checkpoint on the clips of a prepared corpus or on raw videos."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, cast

from talkinghead.data.manifest import SPLITS, ClipEntry, Manifest
from talkinghead.data.preparation.corpus import PrepareOptions, prepare_corpus
from talkinghead.errors import CorpusError, UsageError
from talkinghead.evaluation.audio_dependence import (
    measure_audio_dependence,
    require_audio_dependence,
)
from talkinghead.evaluation.clip_generation import ClipGenerator, Generation, Mode
from talkinghead.evaluation.clip_scores import ClipScorer, RealClip, load_clip
from talkinghead.evaluation.report.results import RANK_BY, ClipResult, Report, TableBy
from talkinghead.evaluation.report.summary import drop_unused_visuals, write_report
from talkinghead.evaluation.scorers.clip_scorers import ScorerOptions, Scorers
from talkinghead.evaluation.time_left import TimeLeft
from talkinghead.models.checkpoint import LoadedNetwork, load_generator
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.paths import check_output_folder
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
from talkinghead.predict.compositing.renderers import LaplacianRenderer, Renderer
from talkinghead.predict.options import PredictOptions
from talkinghead.types import AVSpec
from talkinghead.value_rules import NonNegativeInt, PositiveInt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationOptions(ScorerOptions):
    """Options of `evaluate`.

    Attributes:
        splits: Splits of the corpus. Speakers with clips in "train" form the group "seen", the
            others "unseen".
        max_clips: Number of clips per split, alternating between speakers; None for all.
        generation: "product" generates as `talkinghead predict` does; "model" measures the
            generator alone, without articulation, lip prior, reference policy or compositing.
        mode: "video" (the current frames with a masked mouth) or "still" (one frame throughout, as
            for a photo).
        reference_frame: Index of the reference frame of each clip. Not used for product videos,
            whose reference frames are selected by the reference policy.
        articulation: Scale of the lip motion relative to silence, 0 to 3; only for "product".
        stabilise: Smooth the generated mouth over time before compositing.
        occlusion_guard: Do not paint over objects in front of the mouth; only for "product".
        require_audio_dependence: Fail, after writing the report, if another clip's audio makes no
            difference.
        table_by: Second table of the report, by "corpus" or "speaker", if there are several.
    """

    splits: Sequence[str] = ("val", "test")
    max_clips: PositiveInt | None = 12
    generation: Generation = "product"
    mode: Mode = "video"
    reference_frame: NonNegativeInt = 0
    articulation: float = PredictOptions.articulation
    stabilise: bool = PredictOptions.stabilise
    occlusion_guard: bool = PredictOptions.occlusion_guard
    require_audio_dependence: bool = True
    table_by: TableBy = "corpus"

    def __post_init__(self) -> None:
        super().__post_init__()
        PredictOptions(articulation=self.articulation)  # Checks the range of `articulation`.
        if not self.splits or set(self.splits) - set(SPLITS):
            raise UsageError(
                f"splits: got {list(self.splits)}, expected some of {', '.join(SPLITS)}"
            )


def evaluate(
    checkpoint: str | Path,
    corpus_dir: str | Path | Sequence[str | Path],
    output_dir: str | Path,
    options: EvaluationOptions | None = None,
    lip_prior: LipPrior | Literal["auto"] | None = "auto",
    renderer: Renderer | None = None,
) -> dict[str, Any]:
    """Generate clips of prepared corpora and score them (see docs/metrics.md).

    Args:
        checkpoint: A generator's .ckpt or .safetensors file, or "default" for the packaged weights.
        corpus_dir: A prepared corpus, or a list of several.
        output_dir: Folder for scores.json, clips.csv, report.html and strips/*.png.
        options: see `EvaluationOptions`.
        lip_prior: second prediction of the lip motion; see `PredictOptions`. Not used with
            `generation="model"`.
        renderer: compositing of the mouth into the face; None is `LaplacianRenderer`.

    Returns:
        The content of scores.json.

    Raises:
        CheckpointError: the checkpoint or a scorer's file cannot be used.
        CorpusError: a corpus is missing, broken, of another AVSpec or without suitable clips.
        UsageError: two corpora have the same name, or the output folder is a file.
        DependencyError: the detector's package is not installed.
        AudioIndependentModelError: the audio makes no difference (after the report is written).
    """
    options, output_dir = options or EvaluationOptions(), check_output_folder(output_dir)
    loaded = load_generator(checkpoint)
    corpora = _load_corpora(corpus_dir, loaded.spec, options)
    generator = _make_generator(loaded, options, lip_prior, renderer or LaplacianRenderer())
    scorer = ClipScorer(generator, Scorers.build(options, loaded.spec))
    clips = [clip for corpus in corpora for clip in _score(scorer, corpus, options)]
    clips = drop_unused_visuals(clips, options.num_strips)
    dependence = measure_audio_dependence(clips)
    header = {
        "checkpoint": str(checkpoint),
        "corpus": ", ".join(str(corpus.folder) for corpus in corpora),
        **_describe_generation(options, generator.options),
        "audio_dependence": dependence.to_dict(),
        "left_out": scorer.scorers.notes,
    }
    last = dependence.verdict(), options.table_by
    report = Report("groups", header, clips, loaded.spec.fps, None, *last)
    content = write_report(report, output_dir, options.num_strips)
    if options.require_audio_dependence:
        require_audio_dependence(dependence, str(checkpoint))
    return content


def evaluate_video(
    checkpoint: str | Path,
    input_dir: str | Path,
    output_dir: str | Path,
    options: EvaluationOptions | None = None,
    lip_prior: LipPrior | Literal["auto"] | None = "auto",
    renderer: Renderer | None = None,
) -> dict[str, Any]:
    """Score a checkpoint on a folder of raw videos, whose speakers all count as unseen.

    Errors are raised as by `evaluate`; `options.splits` is ignored.

    Args:
        checkpoint: see `evaluate`.
        input_dir: Folder of raw videos. A corpus is prepared from them in OUTPUT/corpus, which
            later runs use again.
        output_dir: see `evaluate`.
        options: see `EvaluationOptions`.
        lip_prior: see `evaluate`.
        renderer: see `evaluate`.
    """
    options = options or EvaluationOptions()
    corpus_dir = Path(output_dir) / "corpus"
    preparation = PrepareOptions(detector=options.detector, val_fraction=0.0, test_fraction=1.0)
    prepare_corpus(input_dir, corpus_dir, load_generator(checkpoint).spec, preparation)
    options = replace(options, splits=("test",))
    return evaluate(checkpoint, corpus_dir, output_dir, options, lip_prior, renderer)


def choose_clips(entries: Sequence[ClipEntry], max_clips: int | None) -> list[ClipEntry]:
    """Return up to `max_clips` clips in a fixed random order, alternating between speakers."""
    by_speaker: dict[str, list[ClipEntry]] = {}
    for entry in sorted(entries, key=lambda e: hashlib.sha256(e.id.encode()).digest()):
        by_speaker.setdefault(entry.speaker, []).append(entry)
    speakers = [by_speaker[speaker] for speaker in sorted(by_speaker)]
    in_turn = [entry for turn in zip_longest(*speakers) for entry in turn if entry]
    return in_turn[:max_clips]


def choose_other_clip(entry: ClipEntry, manifest: Manifest) -> ClipEntry | None:
    """Return another clip, whose audio does not match this clip; None if there is no other clip.

    A clip of the same split and speaker is preferred, then a clip of the same split, then any clip.
    The model may have been trained on audio of another split, but not together with this face.
    """
    split = manifest.split(entry.split)
    for pool in ([c for c in split if c.speaker == entry.speaker], split, manifest.clips):
        if len(pool) > 1:
            ids = sorted(clip.id for clip in pool)
            chosen = ids[(ids.index(entry.id) + 1) % len(ids)]
            return next(clip for clip in pool if clip.id == chosen)
    return None


def _make_generator(
    loaded: LoadedNetwork,
    options: EvaluationOptions,
    lip_prior: LipPrior | Literal["auto"] | None,
    renderer: Renderer,
) -> ClipGenerator:
    is_product = options.generation == "product"
    prediction = PredictOptions(
        articulation=options.articulation if is_product else 1.0,
        stabilise=options.stabilise,
        occlusion_guard=options.occlusion_guard,
        lip_prior=lip_prior if is_product else None,
        renderer=renderer,
    )
    model = cast(LipSyncGenerator, loaded.model.to(options.device))
    mode, reference_frame = options.mode, options.reference_frame
    return ClipGenerator(model, loaded.spec, mode, reference_frame, options.generation, prediction)


def _describe_generation(options: EvaluationOptions, prediction: PredictOptions) -> dict[str, Any]:
    prior: Any = prediction.lip_prior
    return {
        "options": {**asdict(options), "articulation": prediction.articulation},
        "lip_prior": prior and f"{type(prior).__name__}, {prior.blend_weight:g}",
        "renderer": repr(prediction.renderer),
    }


@dataclass(frozen=True)
class _Corpus:
    """A prepared corpus and its clips to score."""

    name: str
    folder: Path
    manifest: Manifest
    entries: list[ClipEntry]


def _load_corpora(
    folders: str | Path | Sequence[str | Path], spec: AVSpec, options: EvaluationOptions
) -> list[_Corpus]:
    """Return the corpora, each with up to `max_clips` clips of each split."""
    paths = [Path(p) for p in ([folders] if isinstance(folders, str | Path) else folders)]
    names = [path.resolve().name for path in paths]
    if not paths or len(set(names)) < len(names):
        raise UsageError(
            f"corpus: got {', '.join(map(str, paths)) or 'nothing'}, expected one or several "
            "folders of different names"
        )
    return [_load(*pair, spec, options) for pair in zip(names, paths, strict=True)]


def _load(name: str, folder: Path, spec: AVSpec, options: EvaluationOptions) -> _Corpus:
    manifest = Manifest.load(folder)
    manifest.require_spec(spec, folder)
    splits = (manifest.split(split) for split in options.splits)
    entries = [entry for split in splits for entry in choose_clips(split, options.max_clips)]
    if not entries:
        raise CorpusError(
            f"{folder} has no clip in {', '.join(options.splits)}; choose other splits, or "
            "prepare it with val_fraction, test_fraction or holdout_speakers"
        )
    return _Corpus(name, folder, manifest, entries)


def _score(scorer: ClipScorer, corpus: _Corpus, options: EvaluationOptions) -> list[ClipResult]:
    """Return the scores of the clips of a corpus."""
    trained = {clip.speaker for clip in corpus.manifest.split("train")}

    def load(entry: ClipEntry) -> RealClip:
        features = scorer.audio_features
        return load_clip(corpus.folder, entry, scorer.spec, features, options.max_frames)

    clips: list[ClipResult] = []
    time_left = TimeLeft(len(corpus.entries))
    for number, entry in enumerate(corpus.entries, start=1):
        other = choose_other_clip(entry, corpus.manifest)
        group = "seen" if entry.speaker in trained else "unseen"
        result = scorer.score(load(entry), load(other) if other else None, group)
        result = replace(result, facts={"corpus": corpus.name, **result.facts})
        clips = drop_unused_visuals([*clips, result], options.num_strips)
        names = ("r_own", RANK_BY, "r_other")
        logger.info(
            "%d of %d: %s r %.2f, during speech %.2f, with other audio %.2f %s",
            *(number, len(corpus.entries), entry.id),
            *(result.values.get(name, float("nan")) for name in names),
            time_left.after_step(),
        )
    return clips
