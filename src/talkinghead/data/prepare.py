"""A folder of videos to a corpus: parallel, resumable, every refusal counted and explained."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
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

from talkinghead.data.clip_maker import CODE_VERSION, ClipMaker, ClipResult, ClipRules, ClipTask
from talkinghead.data.manifest import ClipEntry, Manifest, SkippedClip, assign_split, write_json
from talkinghead.errors import CorpusError, UsageError
from talkinghead.features.faces.detector import build_detector
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
        max_bad_fraction: with a larger share of bad sources the run fails.
        rules: what makes a source bad.
    """

    detector: str = "litert"
    workers: int = 2
    val_fraction: float = 0.1
    test_fraction: float = 0.0
    split_by: str = "clip"
    holdout_speakers: Sequence[str] = ()
    max_bad_fraction: float = 0.2
    rules: ClipRules = field(default_factory=ClipRules)

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
    all, and carries a key of its source's content, the AVSpec, the detector, the rules and the
    code's version.

    Args:
        input_dir: folder of videos.
        output_dir: the corpus: `clips/`, `manifest.json` and `report.json`.
        spec: the corpus's AVSpec.
        options: see `PrepareOptions`.

    Returns:
        The manifest, as written.

    Raises:
        CorpusError: no videos, too many bad ones (the report is written all the same), or a worker
            that died.
    """
    options = options or PrepareOptions()
    input_dir, output_dir = Path(input_dir), Path(output_dir)
    started = time.monotonic()
    tasks, duplicates = _find_tasks(input_dir, output_dir)
    results = sorted(_run(tasks, spec, options), key=lambda result: result.task.clip_id)
    skipped = [
        SkippedClip(r.task.source.relative_to(input_dir).as_posix(), r.reason, r.detail)
        for r in results
        if r.reason
    ] + duplicates
    clips = [_entry(r, input_dir, output_dir, spec, options) for r in results if not r.reason]
    manifest = Manifest(spec, options.detector, CODE_VERSION, tuple(clips), tuple(skipped))
    reused = sum(r.reused for r in results)
    _write_report(output_dir, manifest, reused, time.monotonic() - started)
    for clip in skipped:
        log.warning("skipped %s: %s (%s)", clip.source, clip.reason, clip.detail)
    _require_good(manifest, options.max_bad_fraction, input_dir, output_dir)
    manifest.save(output_dir)
    log.info(
        "%d clips (%d kept from before), %d skipped: %s",
        len(clips),
        reused,
        len(skipped),
        output_dir,
    )
    return manifest


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


def _start_worker(detector: str, spec: AVSpec, rules: ClipRules) -> None:
    """Each process works on one clip with one thread; more would fight over the cores."""
    global _maker
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _maker = ClipMaker(build_detector(detector), detector, spec, rules)


def _work(task: ClipTask) -> ClipResult:
    assert _maker is not None
    return _maker.run(task)


def _results(tasks: list[ClipTask], spec: AVSpec, options: PrepareOptions) -> Iterator[ClipResult]:
    """Results as they come, from worker processes or from this one."""
    if options.workers <= 0:
        maker = ClipMaker(build_detector(options.detector), options.detector, spec, options.rules)
        yield from map(maker.run, tasks)
        return
    # Spawned, not forked: the parent may hold threads (torch, a progress bar), and a fork would
    # copy their locks.
    with ProcessPoolExecutor(
        min(options.workers, len(tasks)),
        multiprocessing.get_context("spawn"),
        _start_worker,
        (options.detector, spec, options.rules),
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
    speaker = relative.parts[0] if len(relative.parts) > 1 else _ONE_SPEAKER
    split = assign_split(
        result.task.clip_id,
        speaker,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        split_by=options.split_by,
        holdout_speakers=options.holdout_speakers,
    )
    return ClipEntry(
        result.task.clip_id,
        speaker,
        result.task.clip_path.relative_to(output_dir).as_posix(),
        result.num_frames,
        float(result.num_frames / spec.fps),
        split,
        relative.as_posix(),
        result.sha256,
    )


def _write_report(output_dir: Path, manifest: Manifest, reused: int, seconds: float) -> None:
    """What a person wants to know about a run; `manifest.json` is for the code."""
    report = {
        "num_clips": len(manifest.clips),
        "num_reused": reused,
        "num_skipped": len(manifest.skipped),
        "seconds": round(seconds, 1),
        "hours_of_video": round(sum(clip.duration_s for clip in manifest.clips) / 3600, 3),
        "splits": dict(Counter(clip.split for clip in manifest.clips)),
        "speakers": dict(Counter(clip.speaker for clip in manifest.clips)),
        "skipped_by_reason": dict(Counter(clip.reason for clip in manifest.skipped)),
        "skipped": [asdict(clip) for clip in manifest.skipped],
    }
    write_json(output_dir / REPORT_NAME, report)
