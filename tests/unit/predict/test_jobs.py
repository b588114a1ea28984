import logging
from fractions import Fraction
from pathlib import Path

import pytest

from talkinghead.errors import FaceNotFoundError, MediaError, TalkingHeadError, UsageError
from talkinghead.predict.jobs import Job, make_jobs, run_jobs
from talkinghead.predict.predictor import RenderReport


class Predictor:
    """Fails for faces called `bad...`."""

    def __init__(self):
        self.seen = []

    def render(self, face, audio, output, *, crf, preset, progress):
        self.seen.append((face, audio, output, crf, preset))
        progress(1, 2)
        if face.name.startswith("bad"):
            raise FaceNotFoundError(f"{face}: no face")
        return RenderReport(
            output, 50, 3 if face.name == "half.mp4" else 0, Fraction(2), Fraction(25)
        )


def jobs(*faces):
    return [Job(Path(face), Path("a.wav"), Path(f"{face}.out.mp4")) for face in faces]


def test_one_job_from_the_command_line():
    assert make_jobs("f.jpg", "a.wav", "o.mp4", None) == [
        Job(Path("f.jpg"), Path("a.wav"), Path("o.mp4"))
    ]


def test_a_csv_is_read_relative_to_its_folder(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(
        '﻿face,audio,output,note\n"a, b.jpg", s.wav ,out/1.mp4,x\n/c.png,t.wav,2.mp4,\n'.encode()
    )
    assert make_jobs(None, None, None, str(path)) == [
        Job(tmp_path / "a, b.jpg", tmp_path / "s.wav", tmp_path / "out/1.mp4"),
        Job(Path("/c.png"), tmp_path / "t.wav", tmp_path / "2.mp4"),
    ]


def test_a_list_is_read():
    assert make_jobs(None, None, None, [{"face": "f", "audio": "a", "output": "o"}]) == [
        Job(Path("f"), Path("a"), Path("o"))
    ]


@pytest.mark.parametrize(
    ("single", "listed", "message"),
    [
        (("f", None, None), None, "audio=FILE and output=FILE must be given"),
        ((None, None, None), None, "face=FILE and audio=FILE"),
        (("f", "a", "o"), [{"face": "f", "audio": "a", "output": "o"}], "both were given"),
        ((None, None, None), [], "no job"),
        ((None, None, None), [{"face": "f", "audio": "a"}], "job 1: output is missing"),
        ((None, None, None), [{"face": "f", "audio": "a", "output": "o"}] * 2, "two jobs write to"),
        ((None, None, None), "missing.csv", r"missing\.csv cannot be read \(No such file"),
    ],
)
def test_a_wrong_list_is_refused(single, listed, message):
    with pytest.raises(UsageError, match=message):
        make_jobs(*single, listed)


def test_a_csv_that_is_none_is_refused(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xff\xfe\x00\x81\x00")
    with pytest.raises(UsageError, match=r"list\.csv"):
        make_jobs(None, None, None, path)


def test_a_failed_job_does_not_stop_the_others(caplog):
    predictor = Predictor()
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(TalkingHeadError, match="2 of 4 jobs failed"),
    ):
        run_jobs(predictor, jobs("a.jpg", "bad1.jpg", "bad2.jpg", "b.jpg"), crf=20, preset="fast")
    assert [face.name for face, *_ in predictor.seen] == ["a.jpg", "bad1.jpg", "bad2.jpg", "b.jpg"]
    assert predictor.seen[0][3:] == (20, "fast")
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [
        "bad1.jpg.out.mp4 failed: bad1.jpg: no face",
        "bad2.jpg.out.mp4 failed: bad2.jpg: no face",
    ]


def test_a_single_jobs_error_is_its_own():
    with pytest.raises(FaceNotFoundError, match=r"bad\.jpg: no face"):
        run_jobs(Predictor(), jobs("bad.jpg"))


def test_a_bug_is_not_taken_for_a_bad_file():
    class Broken(Predictor):
        def render(self, *args, **options):
            raise TypeError

    with pytest.raises(TypeError):
        run_jobs(Broken(), jobs("a.jpg", "b.jpg"))


def test_frames_without_a_face_are_told(caplog):
    run_jobs(Predictor(), jobs("half.mp4"))
    assert "half.mp4: no face in 3 of 50 frames" in caplog.text


def test_media_errors_are_talking_head_errors():
    assert issubclass(MediaError, TalkingHeadError)
