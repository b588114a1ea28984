"""Compositing with turned heads and with changes of the reference."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from helpers.small_predictor import Detector, make_predictor, speech, write_video

from talkinghead.predict.compositing.compositor import Compositor, cross_fade
from talkinghead.predict.compositing.mouth_region import find_mouth_region
from talkinghead.predict.compositing.renderers import FeatherRenderer
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.mouth_generator import GeneratedFrame
from talkinghead.predict.source import face_tracks
from talkinghead.predict.source.source_frame import PreviousReference, Reference, SourceFrame
from talkinghead.types import AVSpec

SPEC = AVSpec()
SIZE = SPEC.mouth_size
TRANSFORM = np.eye(2, 3, dtype=np.float32)
LIPS = np.zeros((20, 2), np.float32)
IMAGE = np.full((256, 256, 3), 120, np.uint8)
REGION = find_mouth_region(TRANSFORM, 256, 256, SPEC)
OUTLINE = np.float32([[40, 20], [125, 20], [125, 250], [40, 250]])
"""The face ends at column 125; the centre of the mouth is at column 128."""
WHOLE = np.float32([[0, 0], [256, 0], [256, 256], [0, 256]])
COLUMNS = np.arange(REGION.columns.start, REGION.columns.stop) + 0 * REGION.radius
ROWS = np.arange(REGION.rows.start, REGION.rows.stop)[:, None] + 0 * REGION.radius
CENTRE = np.hypot(*(REGION.box_xy - [0.5, 0.62]).transpose(2, 0, 1)) < 0.15


def make_fields(rgb, mask):
    return MouthFields(np.zeros((SIZE // 2, SIZE // 2, 2), np.float32), rgb, mask)


def change_at_yaw(yaw_deg, outline=OUTLINE, reference_outline=None):
    """Return the change of each pixel of the region when a white disc is painted."""
    rows, columns = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    disc = (np.hypot(columns - 0.5, rows - 0.62) < 0.2).astype(np.float32)
    front = np.zeros(3, np.float32)
    reference = Reference(IMAGE, TRANSFORM, LIPS, front, reference_outline)
    pose = None if yaw_deg is None else np.float32([yaw_deg, 0, 0])
    frame = SourceFrame(IMAGE, Fraction(0), Fraction(1, 25), TRANSFORM, reference)
    frame = replace(frame, pose=pose, outline=outline)
    fields = make_fields(np.ones((SIZE, SIZE, 3), np.float32), disc)
    compositor = Compositor(FeatherRenderer(), SPEC, stabilise=False)
    image, _ = compositor.composite(GeneratedFrame(frame, fields))
    return REGION.crop(image)[..., 0].astype(int) - 120


@pytest.mark.parametrize("yaw_deg", [-20, 0, 45, np.nan])
def test_background_beside_the_face_is_unchanged(yaw_deg):
    change = change_at_yaw(yaw_deg)
    assert not change[COLUMNS > 140].any()
    assert change[CENTRE & (COLUMNS < 120)].min() > 60


def test_background_of_the_reference_is_not_copied():
    change = change_at_yaw(0, WHOLE, reference_outline=OUTLINE)
    assert not change[COLUMNS > 140].any()
    assert change[CENTRE & (COLUMNS < 120)].min() > 60


def test_edge_of_the_reference_inside_the_face_is_hidden():
    # In the reference, the face begins at column 85; in the frame, all of this is skin.
    shade = np.where(np.arange(256)[:, None] < 85, 20, 120).astype(np.uint8)
    beside = np.ascontiguousarray(np.broadcast_to(shade, (256, 256, 1)).repeat(3, 2))
    outline = np.maximum(WHOLE, np.float32([85, 0]))
    reference = Reference(beside, TRANSFORM, LIPS, np.zeros(3, np.float32), outline)
    frame = SourceFrame(IMAGE, Fraction(0), Fraction(1, 25), TRANSFORM, reference)
    frame = replace(frame, pose=np.zeros(3, np.float32), outline=WHOLE)
    fields = make_fields(np.ones((SIZE, SIZE, 3), np.float32), np.zeros((SIZE, SIZE), np.float32))
    compositor = Compositor(FeatherRenderer(grain=False), SPEC, stabilise=False)
    image, _ = compositor.composite(GeneratedFrame(frame, fields))
    change = np.abs(REGION.crop(image)[..., 0].astype(int) - 120)
    assert change[(COLUMNS > 78) & (COLUMNS < 90)].max() < 30


def test_frame_with_a_covered_mouth_is_unchanged_and_counts_as_one_with_a_face():
    reference = Reference(IMAGE, TRANSFORM, LIPS)
    frame = SourceFrame(IMAGE, Fraction(0), Fraction(1, 25), TRANSFORM, reference, is_covered=True)
    fields = make_fields(np.ones((SIZE, SIZE, 3), np.float32), np.ones((SIZE, SIZE), np.float32))
    compositor = Compositor(FeatherRenderer(), SPEC)
    image, has_face = compositor.composite(GeneratedFrame(frame, fields))
    assert has_face
    assert np.array_equal(image, IMAGE)
    image, _ = compositor.composite(GeneratedFrame(replace(frame, is_covered=False), fields))
    assert not np.array_equal(image, IMAGE)


def test_mouth_beside_another_one_is_painted_on_the_still_image_after_it():
    white = make_fields(np.ones((SIZE, SIZE, 3), np.float32), np.ones((SIZE, SIZE), np.float32))
    first, second = (
        SourceFrame(IMAGE, Fraction(0), Fraction(1, 25), transform, reference, slot=slot)
        for slot, transform in enumerate((TRANSFORM, TRANSFORM + np.float32([[0, 0, 40]] * 2)))
        for reference in [Reference(IMAGE, transform, LIPS)]
    )
    first = replace(first, is_last=False)
    hidden = GeneratedFrame(replace(first, is_covered=True), white)
    plain = make_fields(white.rgb, np.zeros_like(white.mask))
    images = []
    for before in (GeneratedFrame(first, white), hidden):
        compositor = Compositor(FeatherRenderer(grain=False), SPEC, stabilise=False)
        for frame in (before, GeneratedFrame(second, plain), hidden, GeneratedFrame(second, plain)):
            image, _ = compositor.composite(frame)
        images.append(image)
    assert np.array_equal(*images)


class Recorder:
    """An animation of one weight that records its state."""

    def __init__(self, weight=1.0):
        self.states, self.weight = [], weight

    def target(self, cue):
        return np.full(1, self.weight, np.float32)

    def is_still(self, state):
        return False

    def render_patched(self, image, time_s, state, gesture=None):
        self.states.append(float(state[0]))
        return image


def test_speed_of_motion_does_not_depend_on_the_frame_rate():
    states = {}
    for fps in (25, 50, 100):
        animation, compositor = Recorder(), Compositor(FeatherRenderer(), SPEC)
        for index in range(fps):
            frame = SourceFrame(IMAGE, Fraction(index, fps), Fraction(1, fps), animation=animation)
            compositor.composite(GeneratedFrame(frame))
        states[fps] = animation.states
    assert states[25][:2] == pytest.approx([0.25, 0.4375])
    assert states[50][1::2] == pytest.approx(states[25], abs=1e-5)
    assert states[100][3::4] == pytest.approx(states[25], abs=1e-5)


def test_motion_of_each_face_is_smoothed_by_itself():
    compositor, animations = Compositor(FeatherRenderer(), SPEC), [Recorder(2.0), Recorder(1.0)]
    for index, slots in enumerate([(0, 1), (0, 1), (1,), (0, 1)]):
        for slot in slots:
            frame = SourceFrame(IMAGE, Fraction(index, 25), Fraction(1, 25), slot=slot)
            frame = replace(frame, animation=animations[slot], is_last=slot == 1)
            compositor.composite(GeneratedFrame(frame))
    # The motion of a face that returns starts again.
    assert animations[0].states == pytest.approx([0.5, 0.875, 0.5])
    assert animations[1].states == pytest.approx([0.25, 0.4375, 0.578125, 0.68359375])


def test_mouth_has_the_light_of_the_frame():
    bright = np.random.default_rng(0).integers(60, 240, (32, 32, 3), np.uint8).repeat(8, 0)
    bright = np.ascontiguousarray(bright.repeat(8, 1))
    reference = Reference(bright, TRANSFORM, LIPS)
    fields = make_fields(np.zeros((SIZE, SIZE, 3), np.float32), np.zeros((SIZE, SIZE), np.float32))
    compositor = Compositor(FeatherRenderer(grain=False), SPEC)
    for number, light in enumerate((0.3, 1.0, 0.5)):
        image = np.rint(light * bright).astype(np.uint8)
        frame = SourceFrame(image, Fraction(number, 25), Fraction(1, 25), TRANSFORM, reference)
        painted, _ = compositor.composite(GeneratedFrame(frame, fields))
        assert REGION.crop(painted).mean() == pytest.approx(REGION.crop(image).mean(), rel=0.03)


def test_whole_mouth_is_composited_without_a_head_pose():
    change = change_at_yaw(None)
    assert np.array_equal(change, change_at_yaw(None, outline=None))
    assert change[CENTRE].min() > 60


def test_space_for_the_chin_decreases_gradually_with_yaw():
    # The lower end of the face's outline, row 190, is within the painted disc.
    outline = np.minimum(WHOLE, np.float32([256, 190]))
    changes = [change_at_yaw(yaw_deg, outline)[ROWS > 198] for yaw_deg in np.arange(3.0, 13, 0.5)]
    steps = [np.abs(after - before).max() for before, after in pairwise(changes)]
    assert changes[0].max() > 60
    assert 0 < max(steps) < 0.4 * changes[0].max()
    assert changes[-1].max() < 0.1 * changes[0].max()


def test_previous_reference_is_blended_by_its_weight():
    rng = np.random.default_rng(0)

    def random_reference():
        return Reference(rng.integers(115, 125, IMAGE.shape, np.uint8), TRANSFORM, LIPS)

    def random_fields():
        rgb = rng.random((SIZE, SIZE, 3), np.float32)
        return make_fields(rgb, np.zeros((SIZE, SIZE), np.float32))

    def composite(generated):
        compositor = Compositor(FeatherRenderer(grain=False), SPEC)
        return compositor.composite(generated)[0].astype(float)

    old = SourceFrame(IMAGE, Fraction(0), Fraction(1, 25), TRANSFORM, random_reference())
    previous = PreviousReference(old.reference, 0.25)
    new = replace(old, reference=random_reference(), previous_reference=previous)
    frame = GeneratedFrame(new, random_fields(), GeneratedFrame(old, random_fields()))
    before = composite(GeneratedFrame(old, frame.previous_reference.fields))
    after = composite(GeneratedFrame(replace(new, previous_reference=None), frame.fields))
    assert 4 < np.abs(before - after).max() < 12
    assert np.abs(composite(frame) - 0.25 * before - 0.75 * after).max() <= 1


@pytest.mark.parametrize("weight", [0.7, 0.3])
def test_change_of_the_reference_shows_lips_only_once(weight):
    """The skins differ by 8 levels, and the lips are at different heights."""
    skins = [np.full((96, 96, 3), level, np.uint8) for level in (120, 128)]
    for skin, row in zip(skins, (20, 32), strict=True):
        skin[row : row + 6, 30:60] = 30
    mixed = cross_fade(*skins, weight)
    shown, other = (20, 32) if weight > 0.5 else (32, 20)
    assert (mixed[shown : shown + 6, 30:60] == 30).all()
    assert mixed[other : other + 6, 30:60].min() >= 120
    assert (mixed[80:] == round(128 - 8 * weight)).all()


@pytest.mark.slow
def test_avatar_and_video_use_the_same_references(tmp_path, monkeypatch):
    """The head pose follows the brightness of the frames."""
    num_frames, forehead = 50, 10

    class TurningDetector(Detector):
        def detect(self, image):
            faces = super().detect(image)
            for face in faces:
                face.points[forehead] = image.mean()
            return faces

    def head_pose(points, _):
        return np.float32([0 if points[forehead, 0] < 130 else 20, 0, 0])

    monkeypatch.setattr(face_tracks, "head_pose", head_pose)
    predictor = make_predictor(renderer=FeatherRenderer(grain=False), detector=TurningDetector())
    path = write_video(tmp_path / "turn.mp4", [Fraction(i, 25) for i in range(num_frames)])
    avatar = predictor.avatar(path)
    assert sum(faces[0].previous_reference is not None for faces in avatar.face_frames) == 3
    images = [
        np.stack([image for image, _ in predictor.predict(face, speech(num_frames / 25))])
        for face in (avatar, path)
    ]
    assert len(images[0]) == num_frames
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1
