"""Outputs of a phone's HLG video: orientation, frames, colours, and channels of the audio."""

from fractions import Fraction

import numpy as np
import pytest
from helpers.hdr_videos import DISPLAY, HLG, encode_hlg, write_hdr_video
from helpers.media_files import set_display_matrix, smooth
from helpers.output_cases import audio, probe_output
from helpers.small_predictor import BOX, HEIGHT, WIDTH, make_predictor

from talkinghead.media.decoding.video_image import VideoImage
from talkinghead.media.reader import probe, read_video
from talkinghead.types import EncodeOptions

pytestmark = pytest.mark.slow

NUM_FRAMES = 20


@pytest.fixture(scope="module")
def phone_video(tmp_path_factory):
    phases = np.linspace(0, 0.5, NUM_FRAMES)
    signals = [
        encode_hlg(0.25 * np.power(smooth(WIDTH, HEIGHT, phase) / 255.0, 2.2)) for phase in phases
    ]
    path = tmp_path_factory.mktemp("phone") / "phone.mp4"
    write_hdr_video(path, signals, HLG, master_display=DISPLAY, max_cll="1000,203")
    set_display_matrix(path, (0, 1, -1, 0))
    return path


@pytest.mark.parametrize(
    ("hdr", "expected"),
    [
        ("convert", ("h264", "High", "yuv420p", (1, 1, 1, 1))),
        ("keep", ("hevc", "Main 10", "yuv420p10le", (9, 1, 9, HLG))),
    ],
)
def test_output_of_a_phone_video(tmp_path, phone_video, hdr, expected, monkeypatch):
    kept, get_planes = [], VideoImage.upright_hdr_planes
    monkeypatch.setattr(
        VideoImage, "upright_hdr_planes", lambda image: kept.append(get_planes(image)) or kept[-1]
    )
    output = tmp_path / "out.mp4"
    speech = audio("m4a", "aac", "fltp", 48_000, "stereo")(tmp_path)
    report = make_predictor().render(
        phone_video, speech, output, encode=EncodeOptions(crf=6, hdr=hdr)
    )
    found, _, _ = probe_output(output)
    assert (found["size"], found["channels"], found["fps"]) == ((WIDTH, HEIGHT), 2, Fraction(25))
    assert tuple(found[name] for name in ("video", "profile", "pix_fmt", "colour")) == expected
    assert probe(output).hdr == (probe(phone_video).hdr if hdr == "keep" else None)
    assert len(kept) == (NUM_FRAMES if hdr == "keep" else 0)
    assert not any(planes is None for planes in kept)
    frames, source = list(read_video(output)), list(read_video(phone_video))
    assert len(frames) == len(source) == report.num_frames == NUM_FRAMES
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[BOX] = False
    changed = 0.0
    for frame, other in zip(frames, source, strict=True):
        difference = np.abs(frame.image.astype(int) - other.image)
        assert difference[outside].mean() < 3
        changed = max(changed, float(difference[BOX].max()))
    assert changed > 20
