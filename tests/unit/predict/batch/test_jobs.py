from pathlib import Path

import pytest

from talkinghead.errors import UsageError
from talkinghead.predict.batch.jobs import Job, job_key, make_jobs, take_shard


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


def test_a_text_may_stand_in_the_place_of_audio(tmp_path):
    assert make_jobs("f.jpg", None, "o.mp4", None, "Hello, you.") == [
        Job(Path("f.jpg"), None, Path("o.mp4"), "Hello, you.")
    ]
    path = tmp_path / "list.csv"
    path.write_text('face,text,audio,output\nf.jpg,"Hello, you.",,1.mp4\nf.jpg,,a.wav,2.mp4\n')
    assert make_jobs(None, None, None, path) == [
        Job(tmp_path / "f.jpg", None, tmp_path / "1.mp4", "Hello, you."),
        Job(tmp_path / "f.jpg", tmp_path / "a.wav", tmp_path / "2.mp4"),
    ]
    for audio, text, message in (("a", "Hi", "give one of them"), (None, " ", "text= is empty")):
        with pytest.raises(UsageError, match=message):
            make_jobs("f", audio, "o", None, text)
    with pytest.raises(UsageError, match="both were given"):
        make_jobs(None, None, None, path, "Hi")


def test_a_voice_counts_for_a_text_alone(tmp_path):
    for name in ("face", "speech", "checkpoint"):
        (tmp_path / name).write_text(name)
    face, audio, output = (tmp_path / name for name in ("face", "speech", "out.mp4"))
    base = {"checkpoint": str(tmp_path / "checkpoint"), "crf": 18}

    def keys(job):
        return [job_key(job, {**base, "tts": tts}) for tts in ("joe", "amy")]

    heard = keys(Job(face, audio, output))
    spoken = keys(Job(face, None, output, "Hi."))
    other = keys(Job(face, None, output, "Ho."))
    assert heard[0] == heard[1]
    assert len({heard[0], *spoken, *other}) == 5


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


def test_shards_divide_a_list():
    listed = [Job(Path(str(n)), Path("a"), Path(f"{n}.mp4")) for n in range(5)]
    shards = [take_shard(listed, shard, 3) for shard in range(3)]
    assert [len(shard) for shard in shards] == [2, 2, 1]
    assert {job for shard in shards for job in shard} == set(listed)
    assert take_shard(listed, 0, 1) == listed
    for shard, num_shards in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(UsageError, match="shard"):
            take_shard(listed, shard, num_shards)
