"""Tests of the copies among the videos of a corpus."""

from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.data.preparation.clip_maker import ClipResult, ClipTask
from talkinghead.data.preparation.copies import add_copies, separate_copies
from talkinghead.types import AVSpec


def make_tasks(folder, contents):
    tasks = {}
    for name, content in contents.items():
        (folder / name).write_text(content)
        tasks[name] = ClipTask(folder / name, name, folder / f"{name}.safetensors", name)
    return tasks


def test_first_or_known_video_of_equal_ones_is_kept(tmp_path):
    tasks = make_tasks(tmp_path, {"a": "one", "b": "two", "c": "two", "d": "three"})
    a, b, c, d = tasks.values()
    assert separate_copies([d, c, b, a], None) == ([d, b, a], {c: b})
    clip = ClipEntry("c", "", "c", 50, 2.0, "train", "c", "2")
    earlier = Manifest(AVSpec(), "", "", (clip,))
    assert separate_copies([a, b, c, d], earlier) == ([a, c, d], {b: c})


def test_unreadable_video_is_no_copy(tmp_path):
    missing = ClipTask(tmp_path / "x", "x", tmp_path / "x.safetensors")
    folder = ClipTask(tmp_path, "y", tmp_path / "y.safetensors")
    assert separate_copies([missing, folder], None) == ([missing, folder], {})


def test_copy_of_a_bad_video_is_bad(tmp_path):
    good, good_copy, bad, bad_copy = make_tasks(
        tmp_path, {"a": "one", "b": "one", "c": "no", "d": "no"}
    ).values()
    results = [ClipResult(good, "1"), ClipResult(bad, "2", reason="no face", detail="none")]
    found = add_copies(results, {good_copy: good, bad_copy: bad})
    assert [(one.task, one.reason, one.detail) for one in found] == [
        (good, "", ""),
        (good_copy, "duplicate content", "it is a copy of a"),
        (bad, "no face", "none"),
        (bad_copy, "no face", "none"),
    ]
