"""Tests of the encoders of stream images."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from talkinghead.errors import UsageError
from talkinghead.live.session.transport.image_encoders import image_encoder

FPS = Fraction(25)


def moving_images(count, height=120, width=161):
    """Yield images with a bright square that moves to the right."""
    rows, columns = np.mgrid[:height, :width]
    gradient = np.stack([columns, rows, 255 - columns], axis=-1).astype(np.uint8)
    for number in range(count):
        image = gradient.copy()
        image[40:80, number : number + 40] = 255, 220, 40
        yield image


def decode(packets):
    """Decode H.264 access units with as many images as a player gets without waiting."""
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    return [
        frame.to_ndarray(format="rgb24")
        for packet in packets
        for frame in decoder.decode(av.Packet(packet))
    ]


def test_h264_access_units_decode_to_the_images_without_delay():
    encoder = image_encoder("h264", 161, 120, FPS, quality=90)
    images = list(moving_images(60))
    encoded = [encoder.encode(image, n / FPS) for n, image in enumerate(images)]
    decoded = decode(unit.data for unit in encoded)
    assert len(decoded) == len(images)
    for image, shown in zip(images, decoded, strict=True):
        assert shown.shape == (120, 160, 3)
        assert np.abs(shown.astype(int) - image[:, :160]).mean() < 3


def test_h264_stream_can_be_joined_at_each_keyframe():
    encoder = image_encoder("h264", 161, 120, FPS, quality=80)
    encoded = [encoder.encode(image, n / FPS) for n, image in enumerate(moving_images(101))]
    keyframes = [n for n, unit in enumerate(encoded) if unit.is_keyframe]
    assert keyframes == [0, 50, 100]
    assert all(unit.data.startswith(b"\0\0\0\1") for unit in encoded)
    assert len(decode(unit.data for unit in encoded[50:])) == 51


def test_jpeg_decodes_to_the_image():
    image = next(moving_images(1))
    encoded = image_encoder("jpeg", 161, 120, FPS, quality=90).encode(image, Fraction(0))
    assert encoded.is_keyframe
    shown = np.asarray(Image.open(io.BytesIO(encoded.data)))
    assert np.abs(shown.astype(int) - image).mean() < 4


def test_quality_changes_the_size():
    sizes = [
        len(image_encoder(name, 161, 120, FPS, quality).encode(image, Fraction(0)).data)
        for name in ("jpeg", "h264")
        for quality in (20, 95)
        for image in moving_images(1)
    ]
    assert sizes[0] < sizes[1]
    assert sizes[2] < sizes[3]


def test_unknown_format_is_an_error():
    assert image_encoder("none", 161, 120, FPS, 80) is None
    with pytest.raises(UsageError, match="choose jpeg, h264 or none"):
        image_encoder("av1", 161, 120, FPS, 80)
