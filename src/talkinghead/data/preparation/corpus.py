"""A folder of videos to a corpus: parallel, resumable, every refusal counted and explained."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from talkinghead.data.manifest import ClipEntry, Manifest, SkippedClip, assign_split, write_json
from talkinghead.data.preparation.clip_maker import (
    CODE_VERSION,
    ClipMaker,
    ClipResult,
    ClipRules,
    ClipTask,
)
from talkinghead.data.preparation.labels import read_emotions
from talkinghead.errors import CorpusError, UsageError
from talkinghead.features.faces.detector import build_detector
from talkinghead.sync.offset import SyncRules, load_offset_expert
from talkinghead.types import AVSpec

log = logging.getLogger(__name__)

REPORT_NAME = "report.json"
_ONE_SPEAKER = "speaker"
"""Whoever speaks in videos that lie in the input folder itself."""
VIDEO_SUFFIXES = frozenset(
    {
        ".mp4",
        ".mkv",
        ".mov",
        ".avi",
        ".webm",
        ".m4v",
        ".mpg",
        ".mpeg",
        ".ts",
        ".flv",
        ".wmv",
        ".3gp",
        ".ogv",
        ".mts",
    }
)


@dataclass(frozen=True)
class PrepareOptions:
    """How to prepare a corpus.

    Attributes:
        detector: "litert" or "face_alignment".
        workers: processes; 0 works in this one.
        val_fraction: expected share of clips (or speakers) in "val".
        test_fraction: expected share in "test".
        split_by: "clip" or "speaker".
        holdout_speakers: speakers that go to "test" whole.
        emotions: where the clips' emotion labels come from; see `read_emotions`.
        max_bad_fraction: with a larger share of bad sources the run fails.
        rules: what makes a source bad.
        sync: how well sound and picture must go together, and what measures it.
    """

    detector: str = "litert"
    workers: int = 2
    val_fraction: float = 0.1
    test_fraction: float = 0.0
    split_by: str = "clip"
    holdout_speakers: Sequence[str] = ()
    emotions: str | None = None
    max_bad_fraction: float = 0.2
    rules: ClipRules = field(default_factory=ClipRules)
    sync: SyncRules = field(default_factory=SyncRules)

    def __post_init__(self) -> None:
        if self.split_by not in ("clip", "speaker"):
            raise UsageError(f"split_by is {self.split_by!r}; it must be clip or speaker")
        if not isinstance(self.workers, int) or self.workers < 0:
            raise UsageError(f"workers is {self.workers!r}; it must be a whole number, at least 0")
        for name in ("val_fraction", "test_fraction", "max_bad_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.val_fraction + self.test_fraction > 1.0:
            raise UsageError("val_fraction and test_fraction together exceed 1; make them smaller")


def prepare_corpus(
    input_dir: Path | str,
    output_dir: Path | str,
    spec: AVSpec,
    options: PrepareOptions | None = None,
) -> Manifest:
    """Prepares every video under a folder; `input_dir/<speaker>/...` names the speaker.

    Killed and run again, it goes on where it stopped: each clip's file is written whole or not at
    all, and carries a key of its source's content, the AVSpec, the detector, the rules, the sync
    expert and the code's version.

    Args:
        input_dir: folder of videos.
        output_dir: the corpus: `clips/`, `manifest.json` and `report.json`.
        spec: the corpus's AVSpec.
        options: see `PrepareOptions`.

    Returns:
        The manifest, as written.

    Raises:
        CorpusError: no videos, too many bad ones (the report is written all the same), too few
            speakers to be split, emotion labels that do not fit, or a worker that died.
        CheckpointError: the sync expert is missing, none, or was made for another AVSpec.
    """
    options = options or PrepareOptions()
    input_dir, output_dir = Path(input_dir), Path(output_dir)
    started = time.monotonic()
    tasks, duplicates = _find_tasks(input_dir, output_dir)
    _require_speakers(tasks, input_dir, options)
    emotions = read_emotions(options.emotions, [task.clip_id for task in tasks])
    if options.sync.checkpoint is not None:
        load_offset_expert(options.sync.checkpoint, spec)  # Here, rather than in every worker.
    results = sorted(_run(tasks, spec, options), key=lambda result: result.task.clip_id)
    skipped = [*_refused(results, input_dir), *duplicates]
    clips = [
        replace(
            _entry(r, input_dir, output_dir, spec, options), emotion=emotions.get(r.task.clip_id)
        )
        for r in results
        if not r.reason
    ]
    manifest = Manifest(spec, options.detector, CODE_VERSION, tuple(clips), tuple(skipped))
    reused = sum(r.reused for r in results)
    _write_report(output_dir, manifest, reused, time.monotonic() - started)
    for clip in skipped:
        log.warning("skipped %s: %s (%s)", clip.source, clip.reason, clip.detail)
    _require_good(manifest, options.max_bad_fraction, input_dir, output_dir)
    manifest.save(output_dir)
    for split in _empty_splits({clip.split for clip in clips}, options):
        log.warning("no clip fell into split %s: add videos, or enlarge its share", split)
    told = (len(clips), reused, len(skipped), output_dir)
    log.info("%d clips (%d kept from before), %d skipped: %s", *told)
    return manifest


def _refused(results: Sequence[ClipResult], input_dir: Path) -> list[SkippedClip]:
    return [
        SkippedClip(r.task.source.relative_to(input_dir).as_posix(), r.reason, r.detail)
        for r in results
        if r.reason
    ]


def _empty_splits(filled: set[str], options: PrepareOptions) -> list[str]:
    """The splits that were to have a share and are not among those with a clip."""
    shares = {"val": options.val_fraction, "test": options.test_fraction}
    shares["train"] = 1.0 - sum(shares.values())
    return [name for name, share in shares.items() if share > 1e-9 and name not in filled]


def _require_speakers(tasks: list[ClipTask], input_dir: Path, options: PrepareOptions) -> None:
    """Refuses so few speakers that a split would have none, before any work is done."""
    speakers = {_speaker(task, input_dir) for task in tasks}
    if missing := sorted(set(options.holdout_speakers) - speakers):
        log.warning("holdout_speakers: %s has no video of %s", input_dir, ", ".join(missing))
    empty = _empty_splits({_split("", speaker, options) for speaker in speakers}, options)
    cause = "split_by=speaker" if options.split_by == "speaker" else ""
    remedy = "change val_fraction or test_fraction, or take split_by=clip"
    if speakers <= set(options.holdout_speakers):
        cause, remedy = "holdout_speakers", "or hold out fewer"
    if cause and empty:
        raise CorpusError(
            f"{cause} leaves {' and '.join(empty)} without a speaker: {input_dir} has "
            f"{len(speakers)} ({', '.join(sorted(speakers)[:5])}); add speakers (a folder each), "
            f"{remedy}"
        )


def _require_good(
    manifest: Manifest, max_bad_fraction: float, input_dir: Path, output_dir: Path
) -> None:
    skipped, total = manifest.skipped, len(manifest.clips) + len(manifest.skipped)
    if manifest.clips and len(skipped) <= max_bad_fraction * total:
        return
    counts = Counter(clip.reason for clip in skipped).most_common()
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
    raise CorpusError(
        f"{len(skipped)} of {total} videos in {input_dir} are bad ({reasons}), "
        f"more than max_bad_fraction={max_bad_fraction} allows; "
        f"see {output_dir / REPORT_NAME}, mend them or raise max_bad_fraction"
    )


def _find_tasks(input_dir: Path, output_dir: Path) -> tuple[list[ClipTask], list[SkippedClip]]:
    if not input_dir.is_dir():
        raise CorpusError(
            f"{input_dir} is not a folder; give input= a folder of videos, one folder per speaker"
        )
    sources = sorted(
        p for p in input_dir.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()
    )
    if not sources:
        raise CorpusError(
            f"{input_dir} holds no video files ({', '.join(sorted(VIDEO_SUFFIXES))}); check input="
        )
    tasks: dict[str, ClipTask] = {}
    duplicates = []
    for source in sources:
        relative = source.relative_to(input_dir)
        clip_id = relative.with_suffix("").as_posix()
        if clip_id in tasks:
            detail = f"it has the same name as {tasks[clip_id].source.name}; rename one"
            duplicates.append(SkippedClip(relative.as_posix(), "duplicate name", detail))
            continue
        folder = (
            output_dir / "clips" / (relative.parent if len(relative.parts) > 1 else _ONE_SPEAKER)
        )
        tasks[clip_id] = ClipTask(source, clip_id, folder / f"{relative.stem}.safetensors")
    return list(tasks.values()), duplicates


_maker: ClipMaker | None = None


def _start_worker(spec: AVSpec, options: PrepareOptions) -> None:
    """Each process works on one clip with one thread; more would fight over the cores."""
    global _maker
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _maker = _build_maker(spec, options)


def _build_maker(spec: AVSpec, options: PrepareOptions) -> ClipMaker:
    detector = build_detector(options.detector)
    return ClipMaker(detector, options.detector, spec, options.rules, options.sync)


def _work(task: ClipTask) -> ClipResult:
    assert _maker is not None
    return _maker.run(task)


def _results(tasks: list[ClipTask], spec: AVSpec, options: PrepareOptions) -> Iterator[ClipResult]:
    """Results as they come, from worker processes or from this one."""
    if options.workers <= 0:
        yield from map(_build_maker(spec, options).run, tasks)
        return
    # Spawned, not forked: the parent may hold threads (torch, a progress bar), and a fork would
    # copy their locks.
    with ProcessPoolExecutor(
        min(options.workers, len(tasks)),
        multiprocessing.get_context("spawn"),
        _start_worker,
        (spec, options),
    ) as pool:
        futures = [pool.submit(_work, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise CorpusError(
                "a worker process died (killed, or out of memory); run the same command again, "
                "finished clips are kept, or lower workers="
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _run(tasks: list[ClipTask], spec: AVSpec, options: PrepareOptions) -> list[ClipResult]:
    """All results, behind a progress bar with the time left and the number of bad ones."""
    columns = (
        TextColumn("preparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[bad]} bad"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    results = []
    with Progress(*columns) as progress:
        bar = progress.add_task("preparing", total=len(tasks), bad=0)
        for result in _results(tasks, spec, options):
            results.append(result)
            progress.update(bar, advance=1, bad=sum(bool(r.reason) for r in results))
    return results


def _entry(
    result: ClipResult, input_dir: Path, output_dir: Path, spec: AVSpec, options: PrepareOptions
) -> ClipEntry:
    relative = result.task.source.relative_to(input_dir)
    speaker = _speaker(result.task, input_dir)
    offset = result.offset
    return ClipEntry(
        result.task.clip_id,
        speaker,
        result.task.clip_path.relative_to(output_dir).as_posix(),
        result.num_frames,
        float(result.num_frames / spec.fps),
        _split(result.task.clip_id, speaker, options),
        relative.as_posix(),
        result.sha256,
        offset.frames if offset else None,
        round(offset.confidence, 4) if offset else None,
    )


def _speaker(task: ClipTask, input_dir: Path) -> str:
    parts = task.source.relative_to(input_dir).parts
    return parts[0] if len(parts) > 1 else _ONE_SPEAKER


def _split(clip_id: str, speaker: str, options: PrepareOptions) -> str:
    return assign_split(
        clip_id,
        speaker,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        split_by=options.split_by,
        holdout_speakers=options.holdout_speakers,
    )


def _write_report(output_dir: Path, manifest: Manifest, reused: int, seconds: float) -> None:
    """What a person wants to know about a run; `manifest.json` is for the code."""
    offsets = Counter(c.offset_frames for c in manifest.clips if c.offset_frames is not None)
    report = {
        "num_clips": len(manifest.clips),
        "num_reused": reused,
        "num_skipped": len(manifest.skipped),
        "seconds": round(seconds, 1),
        "hours_of_video": round(sum(clip.duration_s for clip in manifest.clips) / 3600, 3),
        "splits": dict(Counter(clip.split for clip in manifest.clips)),
        "speakers": dict(Counter(clip.speaker for clip in manifest.clips)),
        "emotions": dict(Counter(clip.emotion for clip in manifest.clips if clip.emotion)),
        "offset_frames": {str(frames): offsets[frames] for frames in sorted(offsets)},
        "skipped_by_reason": dict(Counter(clip.reason for clip in manifest.skipped)),
        "skipped": [asdict(clip) for clip in manifest.skipped],
    }
    write_json(output_dir / REPORT_NAME, report)
