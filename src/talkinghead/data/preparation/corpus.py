"""Preparation of a folder of videos, in parallel; an interrupted run can be resumed."""

from __future__ import annotations

import logging
import math
import multiprocessing
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import cv2
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from talkinghead.concurrency import exit_with_parent, removing_unfinished_files
from talkinghead.data.manifest import (
    MANIFEST_NAME,
    SPLITS,
    ClipEntry,
    Manifest,
    SkippedClip,
    write_json,
)
from talkinghead.data.preparation.clip_maker import (
    CODE_VERSION,
    ClipMaker,
    ClipResult,
    ClipRules,
    ClipTask,
)
from talkinghead.data.preparation.copies import COPY, add_copies, remove_clips, separate_copies
from talkinghead.data.preparation.emotion_labels import read_emotions
from talkinghead.data.preparation.lip_offsets import apply_lip_offsets
from talkinghead.data.preparation.splits import SplitOptions, assign_splits
from talkinghead.errors import CorpusError
from talkinghead.features.faces.detector import build_detector
from talkinghead.media.reader import VIDEO_SUFFIXES, list_video_files
from talkinghead.paths import check_output_folder
from talkinghead.progress_bar import stderr_console
from talkinghead.sync.embeddings import load_sync_expert
from talkinghead.sync.lip_offset import LipOffsetRules, PredictLips
from talkinghead.sync.offset import SyncRules
from talkinghead.types import AVSpec
from talkinghead.value_rules import Range, UnitFloat

logger = logging.getLogger(__name__)

REPORT_NAME = "report.json"
_DEFAULT_SPEAKER = "speaker"
"""Name of the speaker of videos that are not in a subfolder."""


@dataclass(frozen=True)
class PrepareOptions(SplitOptions):
    """Options of `prepare_corpus`, including the options of the splits.

    Attributes:
        detector: "litert" or "face_alignment".
        workers: Number of worker processes; with 0 the main process does the work.
        emotions: Source of the emotion labels of the clips: null for no labels; "folder" for the
            names of the folders below the folders of the speakers; or the path of a CSV file with
            the columns clip and emotion.
        max_bad_fraction: Fraction of skipped videos, copies of others not counted, above which the
            run fails.
        rules: Requirements that the videos must meet.
        sync: Required agreement of audio and video, measured by a sync expert.
        lip_offset: Use of the offset that a lip prior measures; None measures nothing.
    """

    detector: str = "litert"
    workers: Annotated[int, Range(0, 1024)] = 2
    emotions: Path | str | None = None
    max_bad_fraction: UnitFloat = 0.2
    rules: ClipRules = field(default_factory=ClipRules)
    sync: SyncRules = field(default_factory=SyncRules)
    lip_offset: LipOffsetRules | None = None


def prepare_corpus(
    input_dir: Path | str,
    output_dir: Path | str,
    spec: AVSpec,
    options: PrepareOptions | None = None,
    predict_lips: PredictLips | None = None,
) -> Manifest:
    """Prepare every video in a folder with one subfolder per speaker.

    The same call resumes an interrupted run: clip files are written atomically, and each stores a
    hash of the source and of all settings. If videos are added later, earlier clips keep their
    splits.

    Args:
        input_dir: Folder of videos; the name of a subfolder is the name of the speaker.
        output_dir: Folder of the corpus: `clips/`, `manifest.json` and `report.json`.
        spec: The corpus's AVSpec.
        options: See `PrepareOptions`.
        predict_lips: Lip prior that measures the offsets; used with `options.lip_offset`.

    Raises:
        CorpusError: There are no videos, too many bad videos (the report is still written), too few
            speakers for the splits, or emotion labels for other videos; or a worker process died.
        CheckpointError: The sync expert cannot be used.

    Example:
        >>> manifest = prepare_corpus("videos", "corpora/mine", AVSpec())
    """
    options, started_s = options or PrepareOptions(), time.monotonic()
    input_dir, output_dir = Path(input_dir), check_output_folder(output_dir)
    tasks, duplicates = _find_tasks(input_dir, output_dir)
    _require_speakers({task.speaker for task in tasks}, input_dir, options)
    emotions = read_emotions(options.emotions, [task.clip_id for task in tasks])
    if options.sync.checkpoint is not None:
        load_sync_expert(options.sync.checkpoint, spec)  # Raise errors before the work begins.
    earlier = _earlier_manifest(output_dir)
    tasks, copies = separate_copies(tasks, earlier)
    results = add_copies(_run(tasks, spec, options), copies)
    results = _correct_offsets(results, spec, options, predict_lips)
    entries = [_entry(r, output_dir, spec, emotions) for r in results if not r.reason]
    clips = tuple(assign_splits(entries, options, earlier))
    bad = [SkippedClip(r.task.name, r.reason, r.detail) for r in results if r.reason]
    skipped, splits = (*bad, *duplicates), options.to_dict()
    manifest = Manifest(spec, options.detector, CODE_VERSION, clips, skipped, splits)
    num_reused = sum(result.reused for result in results)
    _write_report(output_dir, manifest, num_reused, time.monotonic() - started_s)
    _require_good(manifest, options.max_bad_fraction, input_dir, output_dir)
    _save(manifest, output_dir, copies, num_reused)
    return manifest


def _save(
    manifest: Manifest, output_dir: Path, copies: Iterable[ClipTask], num_reused: int
) -> None:
    """Save the manifest, and then remove the clips of copies, which the earlier one may list."""
    manifest.save(output_dir)
    remove_clips(copies)
    sizes = ", ".join(f"{len(manifest.split(name))} {name}" for name in SPLITS)
    logger.info(
        "%s: %d clips (%s), %d videos skipped; %d results are from earlier runs",
        *(output_dir, len(manifest.clips), sizes, len(manifest.skipped), num_reused),
    )


def next_steps(manifest: Manifest, corpus_dir: Path | str) -> list[str]:
    """Return the last lines that `talkinghead prepare` logs: problems and the next command."""
    corpus, lines = shlex.quote(str(corpus_dir)), []
    if not manifest.split("train"):
        return [f"next: talkinghead evaluate corpus={corpus} checkpoint=default output=scores"]
    if not manifest.split("val"):
        remedy = "add videos" if len(manifest.clips) == 1 else "use val_fraction=0.1"
        lines.append(
            "there is no clip for validation, so training validates on clips that it trains on: "
            f"{remedy} and run the same command again"
        )
    return [*lines, f"next: talkinghead train experiment=finetune data.corpus_dir={corpus}"]


def _find_tasks(input_dir: Path, output_dir: Path) -> tuple[list[ClipTask], list[SkippedClip]]:
    command = f"`talkinghead prepare input=VIDEOS output={shlex.quote(str(output_dir))}`"
    if not input_dir.is_dir():
        raise CorpusError(
            f"input={input_dir} is not a folder; run {command} with a folder of videos, one "
            "subfolder per speaker"
        )
    sources = list_video_files(input_dir)
    if not sources and (input_dir / MANIFEST_NAME).is_file():
        raise CorpusError(
            f"input={input_dir} is a prepared corpus, not a folder of videos; train on it with "
            f"`talkinghead train experiment=finetune data.corpus_dir={shlex.quote(str(input_dir))}`"
        )
    if not sources:
        raise CorpusError(
            f"input={input_dir} has no video files ({', '.join(sorted(VIDEO_SUFFIXES))}); run "
            f"{command} with a folder that has some"
        )
    tasks: dict[Path, ClipTask] = {}
    duplicates = []
    for source in sources:
        relative = source.relative_to(input_dir)
        clip_id = relative.with_suffix("").as_posix()
        folder = relative.parent if len(relative.parts) > 1 else Path(_DEFAULT_SPEAKER)
        clip_path = output_dir / "clips" / folder / f"{relative.stem}.safetensors"
        if clip_path in tasks:
            detail = f"its clip would be named like that of {tasks[clip_path].name}; rename one"
            duplicates.append(SkippedClip(relative.as_posix(), "duplicate name", detail))
            continue
        tasks[clip_path] = ClipTask(
            source, clip_id, clip_path, relative.as_posix(), folder.parts[0]
        )
    return list(tasks.values()), duplicates


def _require_speakers(speakers: set[str], input_dir: Path, options: PrepareOptions) -> None:
    """Raise a `CorpusError` if there are too few speakers for the splits."""
    held_out = set(options.holdout_speakers)
    if missing := sorted(held_out - speakers):
        logger.warning("holdout_speakers: %s has no video of %s", input_dir, ", ".join(missing))
    num_free = len(speakers - held_out)
    required = [name for name in options.required if name != "test" or not held_out & speakers]
    empty = required[num_free:]
    if not empty or (num_free and options.split_by == "clip"):
        return
    cause = "split_by=speaker" if num_free else "holdout_speakers"
    remedy = "run the same command with split_by=clip" if num_free else "hold out fewer"
    raise CorpusError(
        f"{cause} leaves {' and '.join(empty)} without a speaker: {input_dir} has {len(speakers)} "
        f"({', '.join(sorted(speakers)[:5])}); add speakers (one subfolder each), or {remedy}"
    )


def _require_good(
    manifest: Manifest, max_bad_fraction: float, input_dir: Path, output_dir: Path
) -> None:
    for clip in manifest.skipped:
        logger.warning("skipped %s: %s (%s)", clip.source, clip.reason, clip.detail)
    bad = [clip.reason for clip in manifest.skipped if clip.reason != COPY]
    total = len(manifest.clips) + len(bad)
    if manifest.clips and len(bad) <= max_bad_fraction * total:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(bad).most_common())
    needed = math.ceil(100 * len(bad) / total) / 100
    remedy = f", or run the same command with max_bad_fraction={needed}" if manifest.clips else ""
    raise CorpusError(
        f"{len(bad)} of {total} videos in {input_dir} are bad ({reasons}), more than "
        f"max_bad_fraction={max_bad_fraction} allows; see {output_dir / REPORT_NAME} and replace "
        f"them{remedy}"
    )


_maker: ClipMaker | None = None


def _start_worker(spec: AVSpec, options: PrepareOptions) -> None:
    """Load the models of a worker process, and limit the process to one thread.

    More threads are not useful, because every worker processes its own clip.
    """
    global _maker
    exit_with_parent()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _maker = _build_maker(spec, options)


def _build_maker(spec: AVSpec, options: PrepareOptions) -> ClipMaker:
    detector = build_detector(options.detector)
    return ClipMaker(
        detector, options.detector, spec, options.rules, options.sync, options.lip_offset
    )


def _work(task: ClipTask) -> ClipResult:
    assert _maker is not None
    with removing_unfinished_files():
        return _maker.run(task)


def _results(tasks: list[ClipTask], spec: AVSpec, options: PrepareOptions) -> Iterator[ClipResult]:
    """Yield the results as they are completed, by worker processes or by this process."""
    if options.workers <= 0:
        yield from map(_build_maker(spec, options).run, tasks)
        return
    try:
        yield from _results_of_workers(tasks, spec, options)
    except BrokenProcessPool as error:
        raise CorpusError(
            "a worker process died (killed, or out of memory); run the same command again, "
            "finished clips are kept. A smaller workers= needs less memory"
        ) from error
    except BrokenPipeError as error:
        raise CorpusError(
            f"worker processes cannot be started with {sys.executable}: run the same command with "
            "workers=0"
        ) from error


def _results_of_workers(
    tasks: list[ClipTask], spec: AVSpec, options: PrepareOptions
) -> Iterator[ClipResult]:
    # Forked processes would copy locks that other threads hold (torch, the progress bar).
    with ProcessPoolExecutor(
        min(options.workers, len(tasks)),
        multiprocessing.get_context("spawn"),
        _start_worker,
        (spec, options),
    ) as pool:
        # Submitting starts the processes. The caller may have others, which must not end.
        others = set(multiprocessing.active_children())
        futures = [pool.submit(_work, task) for task in tasks]
        workers = set(multiprocessing.active_children()) - others
        try:
            for future in as_completed(futures):
                yield future.result()
        except (KeyboardInterrupt, GeneratorExit):
            # The workers do not receive this process's SIGTERM, and would finish their clips first.
            for process in workers:
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _run(tasks: list[ClipTask], spec: AVSpec, options: PrepareOptions) -> list[ClipResult]:
    """Return all results, and show a progress bar."""
    counts = TextColumn("{task.completed} of {task.total}, {task.fields[bad]} bad; left")
    results = []
    columns = (TextColumn("preparing"), BarColumn(), counts, TimeRemainingColumn())
    console = stderr_console()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("preparing", total=len(tasks), bad=0)
        for result in _results(tasks, spec, options):
            results.append(result)
            progress.update(bar, advance=1, bad=sum(bool(r.reason) for r in results))
    return results


def _correct_offsets(
    results: list[ClipResult],
    spec: AVSpec,
    options: PrepareOptions,
    predict_lips: PredictLips | None,
) -> list[ClipResult]:
    """Measure and correct offsets with a lip prior, if there is one."""
    if predict_lips is None or options.lip_offset is None:
        return results
    shortest_s = options.rules.min_duration_s
    return apply_lip_offsets(results, spec, options.lip_offset, predict_lips, shortest_s)


def _entry(
    result: ClipResult, output_dir: Path, spec: AVSpec, emotions: Mapping[str, str]
) -> ClipEntry:
    """Return the manifest entry of a usable clip; the split is assigned later."""
    task, offset = result.task, result.offset
    return ClipEntry(
        id=task.clip_id,
        speaker=task.speaker,
        path=task.clip_path.relative_to(output_dir).as_posix(),
        num_frames=result.num_frames,
        duration_s=float(result.num_frames / spec.fps),
        split="train",
        source=task.name,
        sha256=result.sha256,
        offset_frames=offset.frames if offset else None,
        sync_confidence=round(offset.confidence, 4) if offset else None,
        emotion=emotions.get(task.clip_id),
    )


def _earlier_manifest(output_dir: Path) -> Manifest | None:
    try:
        return Manifest.load(output_dir)
    except CorpusError:  # A missing or unusable manifest is replaced.
        return None


def _write_report(output_dir: Path, manifest: Manifest, num_reused: int, seconds: float) -> None:
    """Write `report.json`, a summary of the run for the user."""
    unmeasured = sum(c.offset_frames is None for c in manifest.clips)
    offsets = Counter(c.offset_frames for c in manifest.clips if c.offset_frames is not None)
    report = {
        "num_clips": len(manifest.clips),
        "num_reused": num_reused,
        "num_skipped": len(manifest.skipped),
        "seconds": round(seconds, 1),
        "hours_of_video": round(sum(clip.duration_s for clip in manifest.clips) / 3600, 3),
        "splits": dict(Counter(clip.split for clip in manifest.clips)),
        "speakers": dict(Counter(clip.speaker for clip in manifest.clips)),
        "emotions": dict(Counter(clip.emotion for clip in manifest.clips if clip.emotion)),
        "offset_frames": {str(frames): offsets[frames] for frames in sorted(offsets)},
        "num_without_offset": unmeasured,
        "skipped_by_reason": dict(Counter(clip.reason for clip in manifest.skipped)),
        "skipped": [asdict(clip) for clip in manifest.skipped],
    }
    write_json(output_dir / REPORT_NAME, report)
