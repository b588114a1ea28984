"""Tests of the copies among the videos of a corpus."""

from talkinghead.data.preparation.clip_maker import ClipResult, ClipTask
from talkinghead.data.preparation.copies import results_of_copies, separate_copies


def make_tasks(folder, contents):
    tasks = {}
    for name, content in contents.items():
        (folder / name).write_text(content)
        tasks[name] = ClipTask(folder / name, name, folder / f"{name}.safetensors", name)
    return tasks


def test_first_or_known_video_of_equal_ones_is_kept(tmp_path):
    tasks = make_tasks(tmp_path, {"a": "one", "b": "two", "c": "two", "d": "three"})
    a, b, c, d = tasks.values()
    assert separate_copies([a, b, c, d], set()) == ([a, b, d], {c: b})
    assert separate_copies([a, b, c, d], {"c"}) == ([a, c, d], {b: c})


def test_unreadable_video_is_no_copy(tmp_path):
    missing = ClipTask(tmp_path / "x", "x", tmp_path / "x.safetensors")
    folder = ClipTask(tmp_path, "y", tmp_path / "y.safetensors")
    assert separate_copies([missing, folder], set()) == ([missing, folder], {})


def test_copy_of_a_bad_video_is_bad(tmp_path):
    good, good_copy, bad, bad_copy = make_tasks(
        tmp_path, {"a": "one", "b": "one", "c": "no", "d": "no"}
    ).values()
    results = [ClipResult(good, "1"), ClipResult(bad, "2", reason="no face", detail="none")]
    found = results_of_copies({good_copy: good, bad_copy: bad}, results)
    assert [(one.task, one.reason, one.detail) for one in found] == [
        (good_copy, "duplicate content", "it is a copy of a"),
        (bad_copy, "no face", "none"),
    ]
