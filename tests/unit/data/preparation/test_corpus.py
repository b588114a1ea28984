"""Tests of the preparation of a folder of videos."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from skimage import data

import talkinghead.data.preparation.corpus as prepare_module
from talkinghead.cli.main import main
from talkinghead.data.clip_file import ClipFile, read_metadata
from talkinghead.data.manifest import ClipEntry, Manifest, SkippedClip
from talkinghead.data.preparation.corpus import PrepareOptions, prepare_corpus
from talkinghead.data.preparation.emotion_labels import read_emotions
from talkinghead.errors import CorpusError, TalkingHeadError, UsageError
from talkinghead.media.writer import VideoWriter
from talkinghead.models.checkpoint import default_checkpoint
from talkinghead.sync.lip_offset import LipOffsetRules
from talkinghead.sync.offset import SyncRules
from talkinghead.types import AVSpec

SPEC = AVSpec()
INLINE = PrepareOptions(workers=0, val_fraction=0.0)


def write_portrait(path, num_frames=26, seed=0, blank=False):
    """Write a video of a photo (a NASA portrait) that is moved slightly, with a tone as audio."""
    path.parent.mkdir(parents=True, exist_ok=True)
    portrait = data.astronaut()[0:256, 96:352]
    rng = np.random.default_rng(seed)
    with VideoWriter(path, 256, 256, Fraction(25), 16_000, preset="ultrafast") as writer:
        for _ in range(num_frames):
            image = np.roll(portrait, int(rng.integers(-1, 2)), axis=1)
            writer.write(np.zeros_like(image) if blank else image)
        tone = 0.2 * np.sin(np.arange(num_frames * 640) * rng.uniform(0.1, 0.3))
        writer.write_audio(tone.astype(np.float32))


def read_report(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        write_portrait(folder / "anna" / f"take {number}.mp4", seed=number)
    write_portrait(folder / "ben" / "take 0.mp4", seed=10)
    return folder


@pytest.fixture
def inputs(videos, tmp_path):
    return shutil.copytree(videos, tmp_path / "in")


@pytest.mark.slow
def test_clips_without_reliable_lip_offset_are_counted(videos, tmp_path):
    rng = np.random.default_rng(0)

    def predict_noise(samples):
        return rng.normal(size=(len(samples) // 640, 20, 2)).astype(np.float32)

    kept = PrepareOptions(workers=0, val_fraction=0.0, lip_offset=LipOffsetRules())
    manifest = prepare_corpus(videos, tmp_path, SPEC, kept, predict_noise)
    assert len(manifest.clips) == read_report(tmp_path)["num_without_offset"] == 4
    dropped = replace(kept, lip_offset=LipOffsetRules(undetermined="drop"))
    with pytest.raises(CorpusError, match="4 undetermined offset"):
        prepare_corpus(videos, tmp_path, SPEC, dropped, predict_noise)


def test_real_faces_become_aligned_labelled_clips(videos, tmp_path, caplog):
    labels, held_out = tmp_path / "labels.csv", ("ben", "carl")
    labels.write_text("clip,emotion\nanna/take 0.mp4,happy\n")
    # The offset of a still face and a tone is arbitrary, but it must be recorded.
    sync = SyncRules("default", min_confidence=0.0, correct=False)
    options = PrepareOptions(0.4, holdout_speakers=held_out, emotions=labels, sync=sync, workers=0)
    manifest = prepare_corpus(videos, tmp_path, SPEC, options)
    assert manifest == Manifest.load(tmp_path)
    assert [clip.emotion for clip in manifest.clips] == ["happy", None, None, None]
    assert f"holdout_speakers: {videos} has no video of carl" in caplog.text
    ids = [clip.id for clip in manifest.clips]
    assert ids == ["anna/take 0", "anna/take 1", "anna/take 2", "ben/take 0"]
    assert manifest.split("test") == [manifest.clips[3]]
    clip = ClipFile(tmp_path / manifest.clips[0].path)
    assert len(clip) == 26
    # The alignment removes the movement of the photo.
    difference = clip.faces(0, 26).astype(int) - clip.tensor("mean_face").transpose(1, 2, 0)
    assert np.abs(difference).mean() < 8
    # The person looks into the camera.
    poses = clip.tensor("head_pose")
    assert np.abs(poses.mean(0)).max() < 25
    assert poses.std(0).max() < 3
    report = read_report(tmp_path)
    assert (report["num_clips"], report["emotions"]) == (4, {"happy": 1})
    assert report["speakers"] == {"anna": 3, "ben": 1}
    offsets = Counter(str(clip.offset_frames) for clip in manifest.clips)
    assert report["offset_frames"] == dict(offsets)
    assert all(0 <= clip.sync_confidence < 0.5 for clip in manifest.clips)


def test_bad_videos_are_reported_and_limited(inputs, tmp_path):
    for number in (1, 2):
        (inputs / "anna" / f"take {number}.mp4").unlink()
    write_portrait(inputs / "anna" / "blank.mp4", blank=True)
    (inputs / "ben" / "text.mp4").write_text("not a video")
    (inputs / "ben" / "notes.txt").write_text("ignored")
    message = r"2 of 4 videos .* max_bad_fraction=0\.2 .* with max_bad_fraction=0\.5"
    with pytest.raises(CorpusError, match=message):
        prepare_corpus(inputs, tmp_path / "out", SPEC, INLINE)
    assert not (tmp_path / "out" / "manifest.json").exists()
    report = read_report(tmp_path / "out")
    assert report["skipped_by_reason"] == {"no face": 1, "corrupt": 1}
    assert [entry["source"] for entry in report["skipped"]] == ["anna/blank.mp4", "ben/text.mp4"]
    assert all(entry["detail"] for entry in report["skipped"])
    lenient = PrepareOptions(workers=0, max_bad_fraction=0.5)
    manifest = prepare_corpus(inputs, tmp_path / "out", SPEC, lenient)
    assert (len(manifest.clips), len(manifest.skipped)) == (2, 2)
    # Results of good and of bad videos are reused.
    assert read_report(tmp_path / "out")["num_reused"] == 4


@pytest.mark.slow
def test_added_videos_are_prepared_and_earlier_clips_kept(inputs, tmp_path):
    options = PrepareOptions(workers=0, val_fraction=0.5, max_bad_fraction=0.5)
    first = prepare_corpus(inputs, tmp_path / "out", SPEC, options)
    times = {c.id: (tmp_path / "out" / c.path).stat().st_mtime_ns for c in first.clips}
    # If two videos differ only in the suffix, the first in alphabetical order is used.
    shutil.copy(inputs / "ben" / "take 0.mp4", inputs / "ben" / "take 0.mpeg")
    write_portrait(inputs / "loose.mp4", seed=11)
    second = prepare_corpus(inputs, tmp_path / "out", SPEC, options)
    assert set(first.clips) < set(second.clips)
    assert [(clip.id, clip.speaker) for clip in second.clips[4:]] == [("loose", "speaker")]
    for clip in first.clips:
        assert (tmp_path / "out" / clip.path).stat().st_mtime_ns == times[clip.id]
    skipped = [(skip.source, skip.reason) for skip in second.skipped]
    assert skipped == [("ben/take 0.mpeg", "duplicate name")]


def test_videos_with_the_same_clip_file_are_skipped(tmp_path):
    videos = [tmp_path / "in" / name for name in ("a.mp4", "speaker/a.mp4", "speaker/b.mp4")]
    for video in videos:
        video.parent.mkdir(parents=True, exist_ok=True)
        video.touch()
    tasks, skipped = prepare_module._find_tasks(tmp_path / "in", tmp_path / "out")
    assert [task.name for task in tasks] == ["a.mp4", "speaker/b.mp4"]
    assert [(one.source, one.reason) for one in skipped] == [("speaker/a.mp4", "duplicate name")]


def test_copies_do_not_count_as_bad_videos():
    clip = ClipEntry("c", "", "c", 50, 2.0, "train", "c", "2")
    copies = tuple(SkippedClip(f"{i}.mp4", "duplicate content", "a copy") for i in range(9))
    manifest = Manifest(SPEC, "", "", (clip,), skipped=copies)
    require = prepare_module._require_good
    require(manifest, 0.0, Path("in"), Path("out"))
    bad = (*copies, SkippedClip("x.mp4", "no face", ""))
    with pytest.raises(CorpusError, match=r"1 of 2 videos .* max_bad_fraction=0\.5"):
        require(replace(manifest, skipped=bad), 0.4, Path("in"), Path("out"))


def test_copies_have_no_clip_file(videos, tmp_path):
    inputs, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(videos / "ben", inputs / "ben")
    prepare_corpus(inputs, output, SPEC, INLINE)
    clip = output / "clips" / "ben" / "take 0.safetensors"
    # A copy before the video in the alphabet, whose clip an earlier version has left behind.
    shutil.copytree(videos / "ben", inputs / "anna")
    shutil.copytree(clip.parent, output / "clips" / "anna")
    manifest = prepare_corpus(inputs, output, SPEC, INLINE)
    assert [(one.source, one.detail) for one in manifest.skipped] == [
        ("anna/take 0.mp4", "it is a copy of ben/take 0.mp4")
    ]
    assert list(output.rglob("*.safetensors")) == [clip]


def test_file_names_may_have_bytes_that_are_not_text(tmp_path):
    name = os.fsdecode(b"bad\xff.mp4")
    clip = ClipEntry(name, "", name, 50, 2.0, "train", name, "2")
    Manifest(SPEC, "", "", (clip,)).save(tmp_path)
    assert Manifest.load(tmp_path).clips == (clip,)


def test_input_without_videos_is_refused_with_a_command(tmp_path):
    def message():
        with pytest.raises(CorpusError) as caught:
            prepare_corpus(tmp_path / "in", tmp_path / "out", SPEC, INLINE)
        return str(caught.value)

    assert "is not a folder; run `talkinghead prepare input=VIDEOS output=" in message()
    (tmp_path / "in").mkdir()
    assert "has no video files (" in message()
    Manifest(SPEC, "", "", ()).save(tmp_path / "in")
    assert "`talkinghead train experiment=finetune data.corpus_dir=" in message()


@pytest.mark.parametrize(
    "options",
    [
        *({"max_bad_fraction": 1.5}, {"workers": "many"}, {"workers": -1}),
        *({"split_by": "day"}, {"val_fraction": 1.5}, {"val_fraction": 0.7, "test_fraction": 0.7}),
    ],
)
def test_invalid_options_are_refused(options):
    with pytest.raises(UsageError):
        PrepareOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_by": "speaker"}, r"split_by=speaker leaves val without .* has 1 \(anna\); "),
        ({"holdout_speakers": ["anna"]}, "holdout_speakers leaves train and val without a speaker"),
        (
            {"sync": SyncRules(default_checkpoint())},
            "no sync expert: checkpoint .*no sync_expert",
        ),
    ],
)
def test_unusable_options_are_refused_before_any_work(inputs, tmp_path, options, message):
    shutil.rmtree(inputs / "ben")
    with pytest.raises(TalkingHeadError, match=message):
        prepare_corpus(inputs, tmp_path / "out", SPEC, PrepareOptions(**options))
    assert not (tmp_path / "out").exists()


def test_command_guarantees_a_validation_clip_and_names_the_next_command(inputs, tmp_path, capsys):
    """Prepare a corpus of one clip, then add a second clip."""
    out = tmp_path / "my corpus"
    added = inputs / "anna/take 1.mp4"
    content = added.read_bytes()
    for path in (added, inputs / "anna/take 2.mp4", inputs / "ben/take 0.mp4"):
        path.unlink()
    command = ["prepare", f"input={inputs}", f"output={out}", "workers=0"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "1 clips (1 train, 0 val, 0 test)" in printed
    assert "training validates on clips that it trains on: add videos" in printed
    added.write_bytes(content)
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 clips (1 train, 1 val, 0 test), 0 videos skipped; 1 results are from" in printed
    assert f"next: talkinghead train experiment=finetune data.corpus_dir='{out}'" in printed
    assert [clip.split for clip in Manifest.load(out).clips] == ["train", "val"]


@pytest.mark.slow
def test_dead_worker_process_is_an_error_with_advice(inputs, tmp_path, monkeypatch):
    # Worker processes end at their start, because int() does not accept their arguments.
    monkeypatch.setattr(prepare_module, "_start_worker", int)
    with pytest.raises(CorpusError, match="finished clips are kept"):
        prepare_corpus(inputs, tmp_path / "out", SPEC, PrepareOptions(workers=1))


@pytest.mark.slow
def test_interruption_ends_only_the_own_worker_processes(inputs, tmp_path):
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=time.sleep, args=(120,))
    other.start()
    before = set(multiprocessing.active_children())
    try:
        tasks, _ = prepare_module._find_tasks(inputs, tmp_path / "out")
        results = prepare_module._results_of_workers(tasks, SPEC, PrepareOptions(workers=1))
        next(results)
        (worker,) = set(multiprocessing.active_children()) - before
        results.close()
        # `join` returns at once while a thread of the pool waits for the same process.
        deadline = time.monotonic() + 60
        while worker.is_alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not worker.is_alive()
        assert other.is_alive()
    finally:
        other.kill()


def test_output_that_is_a_file_is_refused(inputs, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match="out is a file; give a folder"):
        prepare_corpus(inputs, tmp_path / "out", SPEC, INLINE)


@pytest.mark.slow
def test_killed_run_is_resumed(inputs, tmp_path):
    for number in range(3, 6):
        write_portrait(inputs / "anna" / f"take {number}.mp4", seed=number)
    code = (
        "import sys; from talkinghead.data.preparation.corpus import *\n"
        "prepare_corpus(sys.argv[1], sys.argv[2], AVSpec(), PrepareOptions(workers=0))"
    )
    out, clips = tmp_path / "out", "clips/*/[!.]*.safetensors"
    command = [sys.executable, "-c", code, inputs, out]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(out.glob(clips)) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in out.glob(clips)}
    assert 1 <= len(finished) < 7
    assert all(read_metadata(path) is not None for path in finished)
    assert not (out / "manifest.json").exists()
    manifest = prepare_corpus(inputs, out, SPEC, INLINE)
    assert len(manifest.clips) == 7
    assert all(path.stat().st_mtime_ns == made for path, made in finished.items())
    assert read_report(out)["num_reused"] == len(finished)


LABELLED = ["anna/happy/take 1", "anna/sad/take 1", "ben/take.2"]


def test_emotions_are_read_from_folders_and_tables(tmp_path):
    assert read_emotions("folder", LABELLED) == {LABELLED[0]: "happy", LABELLED[1]: "sad"}
    table = tmp_path / "my, labels.csv"
    table.write_text("emotion,clip\n happy ,anna/happy/take 1.mp4\nsad,ben/take.2\n", "utf-8-sig")
    assert read_emotions(str(table), LABELLED) == {LABELLED[0]: "happy", LABELLED[2]: "sad"}
    with pytest.raises(CorpusError, match="SPEAKER/EMOTION/"):
        read_emotions("folder", ["anna/1", "2"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("video,label\na,b\n", "it has the columns video, label"),
        ("clip,emotion\nanna/joy/take 1,joy\n", "names anna/joy/take 1, which is not among the 3"),
        ("clip,emotion\n", "labels none of 3 videos"),
    ],
)
def test_unusable_emotion_table_is_refused(tmp_path, text, message):
    table = tmp_path / "labels.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(CorpusError, match=message):
        read_emotions(table, LABELLED)
