"""Tests of the checks of uploaded files."""

from __future__ import annotations

import errno
import json
import tempfile
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.live_sessions import FakePool, open_client
from helpers.media_files import smooth, tone, write_media
from PIL import Image

from talkinghead.errors import FaceNotFoundError, MediaError
from talkinghead.live.server import uploads
from talkinghead.live.server.uploads import (
    DecodeLimits,
    check_signature,
    rewrite_face,
    rewrite_speech,
)
from talkinghead.media.audio_decoding import read_audio
from talkinghead.media.reader import probe, read_image
from talkinghead.paths import demo_face

LIMITS = DecodeLimits(max_pixels=1_000_000, max_side=256, max_s=1.0, time_s=60, memory_bytes=2**31)
CONSENT = {"consent": "true"}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_face_video(path, num_frames, fps=Fraction(25)):
    face = read_image(demo_face())[:400, :400]
    return write_media(path, [face] * num_frames, fps=fps, options={"preset": "ultrafast"})


def test_photo_is_reduced_and_loses_its_metadata():
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    exif[0x0112] = 6  # Turned by 90 degrees.
    photo = Image.open(demo_face()).convert("RGB").crop((0, 0, 512, 400))
    photo.transpose(Image.Transpose.ROTATE_90).save("upload.jpg", exif=exif)
    written = Image.open(rewrite_face(Path("upload.jpg"), LIMITS))
    assert written.size == (256, 200)
    assert not written.getexif()
    assert b"taken at home" not in Path("face.png").read_bytes()


def test_video_is_reduced_and_keeps_its_speech():
    face = read_image(demo_face())[:400, :400]
    samples = np.concatenate([np.zeros(4410, np.float32), tone(0.3, 44_100)])
    path = write_media(Path("upload.mp4"), [face] * 10, audio=samples, sample_rate=44_100)
    written = rewrite_face(path, LIMITS)
    info = probe(written)
    assert (info.width, info.height, info.fps) == (256, 256, 25)
    assert float(info.duration_s) == pytest.approx(0.4, abs=0.1)
    assert (info.has_audio, info.sample_rate) == (True, 16_000)
    kept = read_audio(written, 16_000).samples
    # The tone begins at the same time, after 0.1 s of silence.
    assert np.abs(kept[:1400]).max() < 0.05
    assert np.abs(kept[1900:6000]).max() > 0.3


def test_audio_of_an_uploaded_video_is_limited():
    face = read_image(demo_face())[:400, :400]
    path = write_media(Path("upload.mp4"), [face] * 10, audio=tone(3.0, 16_000))
    written = rewrite_face(path, LIMITS)
    assert len(read_audio(written, 16_000).samples) <= 1.1 * 16_000
    silent = write_media(Path("silent.mp4"), [face] * 10)
    assert not probe(rewrite_face(silent, LIMITS)).has_audio


def test_frame_rate_is_reduced():
    path = write_face_video(Path("upload.mp4"), 24, Fraction(60))
    info = probe(rewrite_face(path, LIMITS))
    assert (info.fps, info.duration_s) == (30, Fraction(12, 30))


def test_video_longer_than_the_limit_is_refused():
    path = write_face_video(Path("upload.mp4"), 27)
    with pytest.raises(MediaError, match="longer than 1 s"):
        rewrite_face(path, LIMITS)
    assert not Path("face.mp4").exists()


def test_photo_with_too_many_pixels_is_refused_before_decoding():
    Image.new("L", (5000, 400)).save("upload.png")
    with pytest.raises(MediaError, match="5000 x 400 pixels; at most 1,000,000"):
        rewrite_face(Path("upload.png"), LIMITS)


@pytest.mark.parametrize("name", ["upload.png", "upload.mp4"])
def test_file_without_a_face_is_refused(name):
    image = smooth(64, 64)
    if name == "upload.png":
        Image.fromarray(image).save(name)
    else:
        write_media(Path(name), [image] * 8)
    with pytest.raises(FaceNotFoundError, match="no face was found"):
        rewrite_face(Path(name), LIMITS)


def test_damaged_photo_is_refused():
    data = Path(demo_face()).read_bytes()
    Path("upload.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError):
        rewrite_face(Path("upload.png"), LIMITS)


def test_playlist_does_not_open_other_files():
    write_face_video(Path("other.mp4"), 5)
    Path("upload.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError):
        rewrite_face(Path("upload.m3u8"), LIMITS)


def test_speech_becomes_wav():
    write_media(Path("upload.mp4"), audio=tone(0.5, 44_100), sample_rate=44_100)
    with wave.open(str(rewrite_speech(Path("upload.mp4"), LIMITS))) as reader:
        assert reader.getparams()[:3] == (1, 2, 44_100)
        samples = np.frombuffer(reader.readframes(-1), "<i2")
    assert len(samples) == 22_050
    assert 0.3 < np.abs(samples / 32_768).max() < 0.7


def test_long_speech_is_refused():
    write_media(Path("upload.mp4"), audio=tone(1.5, 16_000))
    with pytest.raises(MediaError, match="longer than 1 s"):
        rewrite_speech(Path("upload.mp4"), LIMITS)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", "face"),
        (b"hello, this is text", "face"),
        (b"#EXTM3U", "face"),
        (b"GIF89a", "face"),
        (b"<svg xmlns=", "face"),
        (b"RIFF\0\0\0\0WAVEfmt ", "face"),
        (b"\xff\xd8\xff\xe0", "speech"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "speech"),
    ],
)
def test_other_formats_are_refused(head, kind):
    with pytest.raises(MediaError, match="expected"):
        check_signature(head, kind)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "face"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "face"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "face"),
        (b"\x1a\x45\xdf\xa3", "face"),
        (b"RIFF\n\0\0\0WAVEfmt ", "speech"),
        (b"ID3\4", "speech"),
        (b"OggS", "speech"),
    ],
)
def test_known_formats_are_accepted(head, kind):
    check_signature(head, kind)


def upload(client, path, **data):
    return client.post("/v1/avatars", files={"file": ("../x", path.read_bytes())}, data=data)


def test_upload_needs_consent():
    with open_client() as client:
        refused = upload(client, demo_face())
        assert refused.status_code == 422
        assert "consent=true" in refused.json()["error"]["message"]


def test_upload_of_text_is_refused():
    Path("notes.jpg").write_text("not a photo at all")
    with open_client() as client:
        refused = upload(client, Path("notes.jpg"), **CONSENT)
        assert refused.json()["error"]["type"] == "media_error"


@pytest.mark.slow
def test_uploaded_face_can_be_used_until_it_is_deleted():
    pool = FakePool()
    with open_client(pool, max_uploads=1) as client:
        created = upload(client, demo_face(), **CONSENT)
        assert created.status_code == 201
        avatar = created.json()["id"]
        assert len(avatar) >= 22
        assert client.get("/v1/avatars").json() == []
        assert client.post("/v1/sessions", json={"avatar": avatar}).status_code == 201
        face = pool.created[0].face
        assert probe(face).is_image
        full = upload(client, demo_face(), **CONSENT)
        assert (full.status_code, full.headers["Retry-After"]) == (503, "60")
        assert client.delete(f"/v1/avatars/{avatar}").status_code == 204
        assert not face.exists()
        assert client.post("/v1/sessions", json={"avatar": avatar}).status_code == 422
        assert client.delete(f"/v1/avatars/{avatar}").status_code == 404


@pytest.mark.slow
def test_unused_upload_expires():
    with open_client(FakePool(), upload_expiry_s=0.0) as client:
        avatar = upload(client, demo_face(), **CONSENT).json()["id"]
        client.app.state.avatars.remove_expired()
        assert client.post("/v1/sessions", json={"avatar": avatar}).status_code == 422


@pytest.mark.slow
@pytest.mark.parametrize(
    "limit", [{"upload_memory_bytes": 100_000_000}, {"upload_timeout_s": 0.01}]
)
def test_decoding_beyond_the_limits_is_stopped(limit):
    noise = np.random.default_rng(0).integers(0, 256, (4000, 6000, 3), np.uint8)
    Image.fromarray(noise).save("upload.png", compress_level=1)
    with open_client(max_upload_bytes=100_000_000, **limit) as client:
        refused = upload(client, Path("upload.png"), **CONSENT)
        assert refused.status_code == 422
        # The decoder itself may fail first.
        assert "smaller file" in refused.json()["error"]["message"]
        folder = client.app.state.avatars._folder
        assert not list(folder.iterdir())


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device", "/tmp/upload")


def full_disk_of_writer(*_):
    try:
        full_disk()
    except OSError as error:
        raise MediaError("speech.wav: No space left on device") from error


@pytest.mark.parametrize("name", ["_copy", "_decode", "SpooledTemporaryFile.write"])
def test_full_disk_is_no_error_of_the_client(name, monkeypatch, caplog):
    target = tempfile.SpooledTemporaryFile if "." in name else uploads
    monkeypatch.setattr(target, name.rpartition(".")[2], full_disk)
    with open_client() as client:
        refused = upload(client, demo_face(), **CONSENT)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "60")
        assert "the disk of the server is full" in refused.json()["error"]["message"]
        assert not list(client.app.state.avatars._folder.iterdir())
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("fail", [full_disk, full_disk_of_writer])
def test_decoding_process_reports_a_full_disk(fail, monkeypatch, capsys):
    monkeypatch.setattr(uploads, "_limit_resources", lambda limits: None)
    monkeypatch.setattr(uploads, "lower_process_priority", lambda: None)
    monkeypatch.setattr(uploads, "rewrite_speech", fail)
    uploads.main("speech", LIMITS)
    assert json.loads(capsys.readouterr().out)["error"] == "disk full"
