"""Images and image sequences: content, comments, and replacement of earlier sequences."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from helpers.media_files import file_names, smooth, tone
from PIL import Image

from talkinghead.errors import MediaError
from talkinghead.media.reader import read_image
from talkinghead.media.writer import open_writer, write_image

RATE = 16_000
FPS = Fraction(25)
FRAME = np.zeros((16, 16, 3), np.uint8)


def write(path, images, **options):
    """Write a sequence of images of one size."""
    height, width, _ = images[0].shape
    with open_writer(path, width, height, FPS, None, **options) as writer:
        for image in images:
            writer.write(image)


def test_image_sequence_is_numbered_and_complete_or_absent(tmp_path):
    images = [smooth(48, 63, index / 12) for index in range(12)]
    with open_writer(tmp_path / "new" / "f_%03d.png", 63, 48, FPS, RATE, crf=1) as writer:
        for image in images:
            writer.write(image, None)
        writer.write_audio(tone(1, RATE))
    found = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in found] == [f"f_{n:03}.png" for n in range(1, 13)]
    assert all(np.array_equal(read_image(p), i) for p, i in zip(found, images, strict=True))
    with pytest.raises(MediaError, match="got an image of shape"):
        write(tmp_path / "other" / "%d.jpg", [images[0], FRAME])
    assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("name", ["a_%d.png", "a_%d.jpg"])
def test_images_of_a_sequence_have_a_comment(tmp_path, name):
    # A JPEG comment has at most 65,000 bytes; the tags at its end are kept.
    for comment, key in (("erzeugt für Ünï", "12"), ("x" * 70_000, "34")):
        write(tmp_path / name, [FRAME] * 2, metadata={"comment": comment, "job": key})
        for number in (1, 2):
            with Image.open(tmp_path / name.replace("%d", str(number))) as image:
                (found,) = (v for k, v in image.info.items() if k.lower() == "comment")
            text = found.decode() if isinstance(found, bytes) else found
            assert f"{comment}; job={key}".endswith(text)
            assert text.endswith(f"{comment[:15]}; job={key}")


def test_shorter_sequence_replaces_a_longer_one(tmp_path, caplog):
    caplog.set_level("INFO")
    others = ["f_06.png", "f_4.png", "g_04.png"]
    for name in others:
        (tmp_path / name).touch()
    write(tmp_path / "f_%02d.png", [FRAME] * 4)
    assert "removed" not in caplog.text
    write(tmp_path / "f_%02d.png", [FRAME + 9] * 2)
    assert file_names(tmp_path) == sorted(["f_01.png", "f_02.png", *others])
    assert "f_%02d.png: removed 2 images of an earlier sequence, from f_03.png on" in caplog.text
    assert read_image(tmp_path / "f_02.png").max() == 9


def test_failed_sequence_leaves_the_earlier_one(tmp_path):
    write(tmp_path / "%d.png", [FRAME] * 3)
    with pytest.raises(MediaError, match="got an image of shape"):
        write(tmp_path / "%d.png", [FRAME + 9, FRAME[:8]])
    assert file_names(tmp_path) == ["1.png", "2.png", "3.png"]
    assert read_image(tmp_path / "1.png").max() == 0
    (tmp_path / "new" / "1.png").mkdir(parents=True)
    with pytest.raises(MediaError, match=r"%d\.png: cannot be written"):
        write(tmp_path / "new" / "%d.png", [FRAME])


def test_images_of_a_killed_process_are_removed(tmp_path):
    script = (
        "import os, signal, sys; import numpy as np; from fractions import Fraction\n"
        "from talkinghead.media.writer import open_writer\n"
        "with open_writer(sys.argv[1], 16, 16, Fraction(25), None) as writer:\n"
        "    writer.write(np.zeros((16, 16, 3), np.uint8))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    pattern = tmp_path / "%d.png"
    subprocess.run([sys.executable, "-c", script, str(pattern)], check=False)
    assert len(file_names(tmp_path)) == 1
    write(pattern, [FRAME])
    assert file_names(tmp_path) == ["1.png"]


@pytest.mark.parametrize(("name", "tolerance"), [("a.png", 0), ("A.JPEG", 12)])
def test_image_round_trip(tmp_path, name, tolerance):
    image = smooth(47, 33)
    write_image(tmp_path / name, image)
    with Image.open(tmp_path / name) as stored:
        decoded = np.asarray(stored.convert("RGB")).astype(int)
    assert np.abs(decoded - image).max() <= tolerance
    assert np.abs((decoded - image.astype(int)).mean((0, 1))).max() < 1
    assert np.abs(read_image(tmp_path / name).astype(int) - decoded).max() <= 4


def test_wrong_images_are_refused(tmp_path):
    for name, image in {"a.bmp": smooth(8, 8), "a.png": np.zeros((8, 8, 4), np.uint8)}.items():
        with pytest.raises(MediaError, match=name):
            write_image(tmp_path / name, image)
    assert file_names(tmp_path) == []
