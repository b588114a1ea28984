"""Tests of jobs whose files are on object stores: fsspec's memory and local systems, and moto."""

import csv
import importlib.util
import io
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import fsspec
import numpy as np
import pytest

from talkinghead.errors import DependencyError, FaceNotFoundError, MediaError, TalkingHeadError
from talkinghead.media.writer import VideoWriter
from talkinghead.predict.batch import remote_files
from talkinghead.predict.batch.finished_outputs import find_finished
from talkinghead.predict.batch.jobs import Job, local_job, make_jobs
from talkinghead.predict.batch.remote_files import download, is_remote, locate, parent, upload
from talkinghead.predict.batch.runner import run_jobs
from talkinghead.predict.prediction import RenderReport

SETTINGS = {"crf": 18}


class Renderer:
    """A predictor that writes a small video with tags, or fails for a face without content."""

    def __init__(self):
        self.rendered = []

    def render(self, face, audio, output, *, tags, progress, **options):
        if not face.read_bytes():
            raise FaceNotFoundError(f"{face}: no face")
        self.rendered.append((face.name, audio.read_bytes()))
        with VideoWriter(output, 16, 16, Fraction(25), None, metadata=tags) as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8))
        return RenderReport(output, 1, 0, Fraction(1, 25), Fraction(25))


@pytest.fixture
def s3(monkeypatch):
    """Serve an object store on this machine, and return the URL of a bucket."""
    pytest.importorskip("obstore", reason="needs the extra objects")
    if importlib.util.find_spec("moto") is None:
        pytest.skip("needs moto[server]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint, bucket = f"http://127.0.0.1:{port}", f"bucket-{uuid.uuid4().hex[:8]}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None
            time.sleep(0.2)
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT"))
        yield f"s3://{bucket}"
        server.terminate()


@pytest.fixture(params=["memory", "file", pytest.param("s3", marks=pytest.mark.slow)])
def store(request, tmp_path) -> str:
    if request.param == "s3":
        return request.getfixturevalue("s3")
    if request.param == "file":
        return f"file://{tmp_path}/store"
    return f"memory://{uuid.uuid4().hex}"


def _put(store: str, name: str, content: bytes, folder: Path) -> str:
    path = folder / "upload.tmp"
    path.write_bytes(content)
    upload(path, f"{store}/{name}")
    return f"{store}/{name}"


def test_jobs_of_a_remote_list_are_rendered_once(store, tmp_path, caplog):
    _put(store, "in/a.png", b"a", tmp_path)
    _put(store, "in/none.png", b"", tmp_path)
    speech = tmp_path / "speech.wav"
    speech.write_bytes(b"local")
    rows = io.StringIO()
    table = csv.writer(rows)
    table.writerow(["face", "audio", "output"])
    table.writerow(["in/a.png", "in/a.wav", "out/a.mp4"])
    table.writerow([f"{store}/in/a.png", speech, f"{store}/out/b.mp4"])
    table.writerow(["in/none.png", speech, "out/none.mp4"])
    _put(store, "in/a.wav", b"remote", tmp_path)
    jobs = make_jobs(None, None, None, _put(store, "jobs.csv", rows.getvalue().encode(), tmp_path))
    assert [job.output for job in jobs] == [f"{store}/out/{n}.mp4" for n in ("a", "b", "none")]
    first, second = Renderer(), Renderer()
    with pytest.raises(TalkingHeadError, match="1 of 3 jobs failed"):
        run_jobs(lambda: first, jobs, settings=SETTINGS)
    assert first.rendered == [("a.png", b"remote"), ("a.png", b"local")]
    # The message names the URL, not the local copy.
    assert f"{store}/in/none.png: no face" in caplog.text
    assert list(find_finished(jobs, SETTINGS)) == [True, True, False]
    caplog.set_level(logging.INFO)
    run_jobs(lambda: second, jobs[:2], settings=SETTINGS)
    assert second.rendered == []
    assert f"{store}/out/a.mp4: exists already" in caplog.text
    # Another content of an input makes its output out of date.
    _put(store, "in/a.wav", b"changed", tmp_path)
    run_jobs(lambda: second, jobs[:2], settings=SETTINGS)
    assert second.rendered == [("a.png", b"changed")]


def test_upload_to_a_folder_leaves_no_temporary_file(tmp_path):
    source = tmp_path / "a.bin"
    source.write_bytes(b"content")
    upload(source, f"file://{tmp_path}/store/deep/a.bin")
    assert [path.name for path in (tmp_path / "store/deep").iterdir()] == ["a.bin"]
    assert download(f"file://{tmp_path}/store/deep/a.bin", tmp_path).read_bytes() == b"content"


def test_locations_are_relative_to_the_folder_of_the_list():
    assert locate("a.png", "s3://bucket/in") == "s3://bucket/in/a.png"
    assert locate("gs://other/a.png", Path("in")) == "gs://other/a.png"
    assert locate("a.png", Path("in")) == Path("in/a.png")
    assert parent("s3://bucket/in/jobs.csv") == "s3://bucket/in"
    assert not is_remote("C://photo.jpg")
    assert not is_remote(Path("a.png"))


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("memory://none/a.png", MediaError, "memory://none/a.png: no such file"),
        ("nowhere://a/b.png", MediaError, "cannot be read .*Protocol not known"),
    ],
)
def test_unreadable_url_is_reported_in_one_line(tmp_path, url, kind, message):
    with pytest.raises(kind, match=message):
        download(url, tmp_path)


def test_missing_package_of_a_protocol_is_named(tmp_path, monkeypatch):
    def fail(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(remote_files, "_is_in_obstore", lambda url: False)
    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[objects\]'"):
        download("s3://bucket/a.png", tmp_path)


def test_two_jobs_may_not_write_to_one_url():
    row = {"face": "a.png", "audio": "a.wav", "output": "s3://bucket/a.mp4"}
    with pytest.raises(TalkingHeadError, match=r"two jobs write to s3://bucket/a\.mp4"):
        make_jobs(None, None, None, [row, row])
    assert replace(make_jobs(None, None, None, [row])[0], text=None) == Job(
        Path("a.png"), Path("a.wav"), "s3://bucket/a.mp4"
    )


@pytest.mark.slow
def test_copies_of_a_killed_process_are_removed(tmp_path, monkeypatch):
    script = (
        "import os, signal, sys\n"
        "from talkinghead.predict.batch.jobs import Job, local_job\n"
        "from pathlib import Path\n"
        "with local_job(Job(sys.argv[1], None, Path('out.mp4'))):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    folder = tmp_path / "temporary"
    folder.mkdir()
    face = _put(f"file://{tmp_path}/store", "face.png", b"face", tmp_path)
    environment = {**os.environ, "TMPDIR": str(folder)}
    subprocess.run([sys.executable, "-c", script, face], check=False, env=environment)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with local_job(Job(face, None, tmp_path / "out.mp4")) as job:
        assert list(folder.iterdir()) == [job.face.parent.parent]
