"""Rendering of job lists in one and in several processes: failures, interruption, second runs."""

import logging
import os
import signal
import threading
import time
import weakref
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from talkinghead.errors import (
    CheckpointError,
    FaceNotFoundError,
    MediaError,
    TalkingHeadError,
    UsageError,
)
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.writer import VideoWriter
from talkinghead.predict.batch.jobs import Job
from talkinghead.predict.batch.runner import run_jobs
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.output.c2pa_provenance import SignedProvenance
from talkinghead.predict.predictor import RenderReport


class Predictor:
    """A predictor that writes a text, or fails in the way that the name of the face selects."""

    def __init__(self):
        self.seen = []

    def render(self, face, audio, output, *, tags, progress, **options):
        self.seen.append((face, audio, options))
        progress(1, 2)
        if face.name.startswith("bad"):
            raise FaceNotFoundError(f"{face}: no face")
        if face.name.startswith("bug"):
            raise TypeError("a bug")
        if face.name.startswith("memory"):
            raise MemoryError
        if face.name.startswith("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if face.name.startswith("endless"):
            with atomic_path(output) as temporary:
                temporary.write_text("half")
                while True:
                    progress(1, 2)
                    time.sleep(0.01)
        output.write_text(f"{os.getpid()} {torch.get_num_threads()}")
        unchanged = 3 if face.name == "half.mp4" else 0
        return RenderReport(output, 50, unchanged, Fraction(2), Fraction(25))


def no_predictor():
    raise CheckpointError("missing.ckpt: no such file")


def jobs(folder, *faces):
    return [Job(Path(face), Path("a.wav"), folder / f"{face}.out") for face in faces]


def written(folder):
    return sorted(path.name for path in folder.iterdir())


def test_texts_share_one_voice(tmp_path):
    predictor, made = Predictor(), []

    def make_speaker():
        made.append(1)
        return str.upper

    listed = [Job(Path("a.jpg"), None, tmp_path / f"{n}.mp4", f"hello {n}") for n in range(2)]
    run_jobs(lambda: predictor, [*listed, *jobs(tmp_path, "b.jpg")], make_speaker=make_speaker)
    assert [audio for _, audio, _ in predictor.seen] == ["HELLO 0", "HELLO 1", Path("a.wav")]
    assert made == [1]
    with pytest.raises(UsageError, match="no voice was given"):
        run_jobs(lambda: predictor, listed[:1])


def test_options_of_a_job_replace_those_of_the_list(tmp_path):
    predictor = Predictor()
    face, output = Path("face"), tmp_path / "o"
    jobs = [
        Job(face, (Path("a"), Path("b")), tmp_path / "1", None, (("face_select", (1, 0)),)),
        Job(face, Path("a"), tmp_path / "2"),
        Job(face, Path("a"), tmp_path / "3", None, (("face_select", "index"), ("face_index", 2))),
    ]
    options = SourceOptions(trim=False, face_select="index", face_index=1)
    run_jobs(lambda: predictor, jobs, options=options)
    assert [audio for _, audio, _ in predictor.seen] == [
        (Path("a"), Path("b")),
        *[Path("a")] * 2,
    ]
    assert [given["options"] for _, _, given in predictor.seen] == [
        SourceOptions(trim=False, face_select=(1, 0)),
        options,
        SourceOptions(trim=False, face_select="index", face_index=2),
    ]
    for changes, message in (
        ((("face_select", ("no.jpg",)),), r"no\.jpg"),
        ((("face_select", "all"), ("face_index", 1)), "face_index=1 has no effect"),
    ):
        with pytest.raises(UsageError, match=message):
            run_jobs(lambda: predictor, [Job(face, Path("a"), output, None, changes)])


def test_failed_job_does_not_stop_other_jobs(tmp_path, caplog):
    predictor = Predictor()
    listed = jobs(tmp_path, "a.jpg", "bad1.jpg", "bad2.jpg", "half.mp4")
    with pytest.raises(TalkingHeadError, match="2 of 4 jobs failed"):
        run_jobs(lambda: predictor, listed, provenance=None)
    assert [face.name for face, *_ in predictor.seen] == [job.face.name for job in listed]
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.message for record in records] == [
        f"{tmp_path}/bad1.jpg.out failed: bad1.jpg: no face",
        f"{tmp_path}/bad2.jpg.out failed: bad2.jpg: no face",
        "half.mp4: no face in 3 of 50 frames; they were left unchanged",
    ]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_unexpected_error_fails_one_job_and_predictor_error_all(tmp_path, caplog, workers):
    caplog.set_level(logging.DEBUG, "talkinghead")
    with pytest.raises(TalkingHeadError, match="2 of 4 jobs failed"):
        run_jobs(Predictor, jobs(tmp_path, "a", "bug", "memory", "b"), workers=workers)
    assert written(tmp_path) == ["a.out", "b.out"]
    assert f"{tmp_path}/bug.out failed: TypeError: a bug" in caplog.messages
    assert f"{tmp_path}/memory.out failed: MemoryError" in caplog.messages
    assert 'raise TypeError("a bug")' in caplog.text
    with pytest.raises(CheckpointError, match=r"missing\.ckpt"):
        run_jobs(no_predictor, jobs(tmp_path, "a.jpg", "b.jpg"), workers=workers)


def test_memory_of_a_failed_job_is_freed(tmp_path):
    alive = []

    class Failing(Predictor):
        def render(self, *arguments, **options):
            alive.append(sum(tensor() is not None for tensor in tensors))
            large = torch.zeros(10)
            tensors.append(weakref.ref(large))
            try:
                raise RuntimeError("out of memory")
            except RuntimeError as error:
                raise TalkingHeadError("too large") from error

    tensors: list[weakref.ref] = []
    with pytest.raises(TalkingHeadError, match="3 of 3 jobs failed"):
        run_jobs(Failing, jobs(tmp_path, "a", "b", "c"))
    assert alive == [0, 0, 0]


def test_single_failed_job_empty_list_and_zero_workers(tmp_path):
    with pytest.raises(FaceNotFoundError, match=r"bad\.jpg: no face"):
        run_jobs(Predictor, jobs(tmp_path, "bad.jpg"))
    with pytest.raises(TypeError, match="a bug"):
        run_jobs(Predictor, jobs(tmp_path, "bug"))
    assert run_jobs(no_predictor, []) == []
    with pytest.raises(UsageError, match="workers is 0"):
        run_jobs(Predictor, jobs(tmp_path, "a.jpg"), workers=0)


@pytest.mark.slow
def test_processes_share_cores_and_killed_process_fails_one_job(tmp_path, caplog):
    faces = ("a.jpg", "killed.jpg", "bad.jpg", "b.jpg", "c.jpg")
    with pytest.raises(TalkingHeadError, match="2 of 5 jobs failed"):
        run_jobs(Predictor, jobs(tmp_path, *faces), workers=2)
    assert written(tmp_path) == ["a.jpg.out", "b.jpg.out", "c.jpg.out"]
    assert "killed.jpg.out failed: its process died" in caplog.text
    assert "bad.jpg.out failed: bad.jpg: no face" in caplog.text
    found = [(tmp_path / name).read_text().split() for name in written(tmp_path)]
    assert str(os.getpid()) not in {process for process, _ in found}
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {int(count) for _, count in found} == {threads}


@pytest.mark.slow
def test_interrupted_processes_remove_unfinished_files(tmp_path):
    def interrupt():
        while len(written(tmp_path)) < 2:
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs(Predictor, jobs(tmp_path, "endless1", "endless2", "a.jpg"), workers=2)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, previous)
    assert written(tmp_path) == []


class Writer:
    """A predictor that writes a real video file with tags."""

    def render(self, face, audio, output, *, tags, progress, **options):
        if not face.exists():
            raise MediaError(f"{face}: no such file")
        with VideoWriter(output, 16, 16, Fraction(25), None, metadata=tags) as writer:
            writer.write(torch.zeros(16, 16, 3, dtype=torch.uint8).numpy())
        return RenderReport(output, 1, 0, Fraction(1, 25), Fraction(25))


@pytest.fixture
def listed(tmp_path):
    for name in ("face", "speech", "model"):
        (tmp_path / name).write_text(name)
    return [
        Job(tmp_path / face, tmp_path / "speech", tmp_path / f"{number}.mp4")
        for number, face in enumerate(["face", "missing", "face"])
    ]


def test_second_run_renders_only_missing_outputs(tmp_path, listed):
    def run(crf=18, overwrite=False):
        settings = {"checkpoint": str(tmp_path / "model"), "crf": crf}
        reports = run_jobs(Writer, listed, settings=settings, overwrite=overwrite)
        return [report.path.name for report in reports]

    with pytest.raises(TalkingHeadError, match="1 of 3 jobs failed"):
        run()
    (tmp_path / "missing").write_text("mended")
    assert run() == ["1.mp4"]
    assert run() == []
    everything = ["0.mp4", "1.mp4", "2.mp4"]
    assert run(overwrite=True) == run(crf=20) == run() == everything
    # The keys depend on the content of the files, not on modification times.
    for name in ("face", "speech", "model"):
        os.utime(tmp_path / name)
    assert run() == []
    (tmp_path / "missing").write_text("another")
    assert run() == ["1.mp4"]
    (tmp_path / "model").write_text("trained on")
    assert run() == everything
    listed[0].output.write_bytes(listed[0].output.read_bytes()[:300])
    listed[1].output.unlink()
    assert run() == ["0.mp4", "1.mp4"]


def test_signed_output_is_not_rendered_again(listed, tmp_path):
    pytest.importorskip("c2pa")
    settings = {"checkpoint": str(tmp_path / "model")}
    assert len(run_jobs(Writer, listed[:1], settings=settings)) == 1
    SignedProvenance().seal(listed[0].output, listed[0].output)
    assert run_jobs(no_predictor, listed[:1], settings=settings) == []
    # If no settings are given, outputs are rendered again.
    assert len(run_jobs(Writer, listed[:1])) == 1
