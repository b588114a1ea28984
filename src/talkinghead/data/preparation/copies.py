"""Copies of videos, which are not prepared: they could be in several splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from talkinghead.data.manifest import Manifest
from talkinghead.data.preparation.clip_maker import ClipResult, ClipTask, file_digest

COPY = "duplicate content"
"""Reason of a video that is skipped as a copy of another one."""


def separate_copies(
    tasks: Sequence[ClipTask], earlier: Manifest | None
) -> tuple[list[ClipTask], dict[ClipTask, ClipTask]]:
    """Return the tasks without copies, and the copies with the task of the same content.

    Of equal files the first whose clip is in the `earlier` manifest is kept, otherwise the first.
    """
    known = {clip.id for clip in earlier.clips} if earlier else set()
    sizes = defaultdict[int, list[ClipTask]](list)
    for task in sorted(tasks, key=lambda one: (one.clip_id not in known, one.clip_id)):
        with suppress(OSError):  # The preparation reports it.
            sizes[task.source.stat().st_size].append(task)
    copies: dict[ClipTask, ClipTask] = {}
    for group in sizes.values():
        if len(group) > 1:
            copies |= _copies_among(group)
    return [task for task in tasks if task not in copies], copies


def _copies_among(tasks: Iterable[ClipTask]) -> dict[ClipTask, ClipTask]:
    kept: dict[str, ClipTask] = {}
    copies = {}
    for task in tasks:
        try:
            first = kept.setdefault(file_digest(task.source), task)
        except OSError:  # The preparation reports it.
            continue
        if first is not task:
            copies[task] = first
    return copies


def add_copies(
    results: Sequence[ClipResult], copies: Mapping[ClipTask, ClipTask]
) -> list[ClipResult]:
    """Return the results in the order of the clips, with those of copies.

    The reason of a copy is that of the kept video, or that it is a copy.
    """
    by_task = {result.task: result for result in results}
    for copy, kept in copies.items():
        result = by_task[kept]
        reason, detail = result.reason, result.detail
        if not reason:
            reason, detail = COPY, f"it is a copy of {kept.name}"
        by_task[copy] = ClipResult(copy, result.sha256, reason=reason, detail=detail)
    return sorted(by_task.values(), key=lambda one: one.task.clip_id)


def remove_clips(tasks: Iterable[ClipTask]) -> None:
    """Remove the clips that earlier runs made of videos that are copies."""
    for task in tasks:
        for path in (task.clip_path, task.skip_path):
            path.unlink(missing_ok=True)
