"""One source to one clip, or to the reason why not."""

from fractions import Fraction

import numpy as np
import pytest

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.preparation.clip_maker import ClipMaker, ClipRules, ClipTask, grid_frames
from talkinghead.features.faces.alignment import RIGID_POINTS, canonical_points
from talkinghead.media.writer import VideoWriter
from talkinghead.types import AVSpec, Box, Face, VideoFrame

SPEC = AVSpec()
TONE = 0.3 * np.sin(np.arange(64_000) * 0.2).astype(np.float32)


class FakeDetector:
    """Sees a face of a known size wherever the picture is not dark; its mouth moves as told."""

    topology = "mesh468"

    def __init__(self, size=128.0, mouth=0.0, second=0.0):
        self.size, self.mouth, self.second = size, mouth, second
        self.frame = 0

    def detect(self, image):
        if image.mean() < 40:
            return []
        face = self._face(self.size)
        return [face, self._face(self.second)] if self.second else [face]

    def track(self, image, previous):
        self.frame += 1
        return next(iter(self.detect(image)), None)

    def _face(self, size):
        points = np.full((468, 2), size / 2, np.float32)
        points[list(RIGID_POINTS["mesh468"])] = canonical_points("mesh468", SPEC) * size / 256
        rigid = [*RIGID_POINTS["mesh468"], 4]
        still = points[rigid].copy()
        points += np.float32([0.0, self.mouth * np.sin(self.frame)])
        points[rigid] = still
        points[14] += np.float32([0.0, 5.0 + self.mouth])
        return Face(Box(0, 0, size, size), points, 0.9, "mesh468")


def write_video(path, num_frames=50, fps=Fraction(25), audio=TONE, dark=()):
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(90, 255, (16, 16, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    with VideoWriter(path, 160, 160, fps, None if audio is None else 16_000) as writer:
        for number in range(num_frames):
            picture = np.roll(texture, 10 * number, axis=1)
            writer.write(np.zeros_like(picture) if number in dark else picture)
        if audio is not None:
            writer.write_audio(audio[: int(num_frames / fps * 16_000)])


def make(tmp_path, detector=None, rules=None, **video):
    source = tmp_path / "raw, 1.mp4"
    if video.pop("write", True):
        write_video(source, **video)
    maker = ClipMaker(detector or FakeDetector(), "fake", SPEC, rules or ClipRules())
    task = ClipTask(source, "a/raw", tmp_path / "out" / "clip.safetensors")
    return maker.run(task), task


def test_good_clip(tmp_path):
    result, task = make(tmp_path)
    assert (result.reason, result.num_frames, result.reused) == ("", 50, False)
    clip = ClipFile(task.clip_path)
    assert len(clip) == 50
    assert clip.mel().shape == (80, 161)
    assert clip.tensor("prosody").shape == (3, 161)
    assert len(clip.tensor("audio")) == 32_000
    transforms = clip.tensor("transforms")
    np.testing.assert_allclose(
        transforms, np.tile(np.float32([[2, 0, 0], [0, 2, 0]]), (50, 1, 1)), atol=1e-3
    )
    assert clip.faces(0, 2).shape == (2, 256, 256, 3)
    assert np.isfinite(clip.tensor("mouth_opening")).all()
    assert clip.tensor("head_pose").shape == (50, 3)


@pytest.mark.parametrize(
    ("reason", "detector", "video"),
    [
        ("no audio", {}, {"audio": None}),
        ("no audio", {}, {"audio": np.zeros(64_000, np.float32)}),
        ("no face", {}, {"dark": range(50)}),
        ("face lost", {}, {"dark": range(20, 27)}),
        ("several faces", {"second": 120.0}, {}),
        ("too short", {}, {"num_frames": 20}),
        ("too small", {"size": 60.0}, {}),
    ],
)
def test_bad_clip_has_its_reason_and_leaves_no_clip(tmp_path, reason, detector, video):
    result, task = make(tmp_path, FakeDetector(**detector), **video)
    assert result.reason == reason
    assert result.detail
    assert not task.clip_path.exists()
    again, _ = make(tmp_path, FakeDetector(**detector), write=False)
    assert (again.reason, again.detail, again.reused) == (reason, result.detail, True)


def test_a_few_lost_frames_are_forgiven_and_marked(tmp_path):
    result, task = make(tmp_path, dark=range(20, 24))
    assert result.reason == ""
    clip = ClipFile(task.clip_path)
    assert np.flatnonzero(np.isnan(clip.tensor("mouth_opening"))).tolist() == [20, 21, 22, 23]
    assert np.isnan(clip.tensor("head_pose")).any(1).sum() == 4
    assert np.isfinite(clip.tensor("transforms")).all()
    # What shows no face has no part in the mean.
    assert clip.tensor("mean_face").mean() > 120


def test_a_much_smaller_second_face_is_no_harm(tmp_path):
    assert make(tmp_path, FakeDetector(second=60.0))[0].reason == ""


@pytest.mark.parametrize("content", [b"", b"this is not a video\n" * 100])
def test_corrupt_file(tmp_path, content):
    (tmp_path / "raw, 1.mp4").write_bytes(content)
    result, _ = make(tmp_path, write=False)
    assert result.reason == "corrupt"
    assert "raw, 1.mp4" in result.detail


def test_truncated_file_is_corrupt(tmp_path):
    write_video(tmp_path / "raw, 1.mp4")
    whole = (tmp_path / "raw, 1.mp4").read_bytes()
    (tmp_path / "raw, 1.mp4").write_bytes(whole[: len(whole) // 2])
    assert make(tmp_path, write=False)[0].reason == "corrupt"


def test_done_work_is_known_again_until_something_changes(tmp_path):
    _, task = make(tmp_path)
    made = task.clip_path.stat().st_mtime_ns
    assert make(tmp_path, write=False)[0].reused
    assert task.clip_path.stat().st_mtime_ns == made
    changed, _ = make(tmp_path, write=False, rules=ClipRules(min_face_px=81.0))
    assert not changed.reused
    other_source, _ = make(tmp_path, num_frames=40)
    assert not other_source.reused
    assert other_source.num_frames == 40
    # A clip that became bad does not linger.
    assert make(tmp_path, audio=None)[0].reason == "no audio"
    assert not task.clip_path.exists()


def test_half_a_clip_file_is_made_again(tmp_path):
    _, task = make(tmp_path)
    whole = task.clip_path.read_bytes()
    task.clip_path.write_bytes(whole[:-100])
    assert not make(tmp_path, write=False)[0].reused
    assert len(task.clip_path.read_bytes()) == len(whole)


def test_crops_do_not_depend_on_the_mouth(tmp_path):
    """Moving all but the rigid points, the mouth above all, leaves each crop as it is."""
    clips = []
    for name, mouth in (("still", 0.0), ("moving", 12.0)):
        (tmp_path / name).mkdir()
        _, task = make(tmp_path / name, FakeDetector(mouth=mouth))
        clips.append(ClipFile(task.clip_path))
    still, moving = clips
    assert not np.allclose(still.tensor("mouth_opening"), moving.tensor("mouth_opening"))
    np.testing.assert_array_equal(still.tensor("transforms"), moving.tensor("transforms"))
    np.testing.assert_array_equal(still.tensor("jpeg"), moving.tensor("jpeg"))
    np.testing.assert_array_equal(still.tensor("head_pose"), moving.tensor("head_pose"))


def test_other_rates_come_onto_the_grid_with_their_sound(tmp_path):
    result, task = make(tmp_path, num_frames=60, fps=Fraction(30000, 1001))
    assert result.num_frames == 50
    assert ClipFile(task.clip_path).mel().shape == (80, 161)


def test_clip_ends_with_its_sound(tmp_path):
    result, _ = make(tmp_path, num_frames=75, audio=TONE[:32_000])
    assert 50 <= result.num_frames <= 53


def frames_at(times):
    return [VideoFrame(np.full((1, 1, 3), n, np.uint8), Fraction(t)) for n, t in enumerate(times)]


def on_grid(times, fps=25):
    frames = list(grid_frames(frames_at(times), Fraction(fps)))
    assert [f.time_s for f in frames] == [Fraction(n, fps) for n in range(len(frames))]
    return [int(frame.image[0, 0, 0]) for frame in frames]


def test_grid_passes_its_own_rate_unchanged_even_with_rounded_times():
    assert on_grid([Fraction(n, 25) for n in range(40)]) == list(range(40))
    millis = [Fraction(round(n * 1000 / 30), 1000) for n in range(40)]
    assert on_grid(millis, 30) == list(range(40))


def test_grid_takes_what_is_on_screen_at_each_middle():
    assert on_grid([Fraction(n, 50) for n in range(8)]) == [1, 3, 5, 7]
    assert on_grid([Fraction(n, 10) for n in range(4)]) == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    # A varying rate: a picture that stays for a quarter of a second.
    assert on_grid(["0", "1/25", "7/25", "8/25"]) == [0] + [1] * 6 + [2, 3]
    assert on_grid([]) == []
    assert on_grid(["0"]) == [0]
