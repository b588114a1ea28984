"""Turned heads of a real photo: the head has the requested pose, and nothing else moves."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from talkinghead.features.faces.head_pose import fit_face_frame, head_pose
from talkinghead.predict.source.head.head_warp import POSE_LIMITS_DEG, HeadWarp, limit_pose
from talkinghead.types import Box

PHOTO = astronaut()


@pytest.fixture(scope="module")
def face(faces):
    return faces[0]


@pytest.fixture(scope="module")
def warp(face, detector):
    return HeadWarp(PHOTO, face, fit_face_frame(face), [], detector)


@pytest.fixture(scope="module")
def untracked_warp(face):
    return HeadWarp(PHOTO, face, fit_face_frame(face), [])


def turned(warp, *pose_deg, image=PHOTO):
    result = image.copy()
    warp.draw(image, pose_deg, result)
    return result


def found_poses(detector, face, warp, axis, angles_deg):
    """Return the pose that the tracker finds in each frame when its points have settled."""
    poses = []
    for angle_deg in angles_deg:
        frame = turned(warp, *(angle_deg * np.eye(3)[axis]))
        for _ in range(3):
            face = detector.track(frame, face)
        poses.append(head_pose(face.points, face.topology))
    return np.array(poses)


@pytest.mark.parametrize(("axis", "angle_deg"), [(0, 10), (1, 8), (2, 10)])
def test_tracker_finds_the_requested_pose(detector, face, warp, axis, angle_deg):
    asked = angle_deg * np.array([0.25, 0.5, 0.75, 1, 0.5, 0, -0.25, -0.5, -0.75, -1])
    found = found_poses(detector, face, warp, axis, asked)
    assert np.polyfit(asked, found[:, axis], 1)[0] == pytest.approx(1, abs=0.1)
    # The tracker's reading of the photo itself is noisy: a constant difference is not an error.
    error = found - asked[:, None] * np.eye(3)[axis]
    assert np.abs(error - error.mean(0)).mean(0).max() < 1.5


def test_head_turns_less_precisely_without_a_detector(detector, face, untracked_warp):
    for axis in range(3):
        found = found_poses(detector, face, untracked_warp, axis, (-4, -8, -4, 4, 8))
        assert (found[-1] - found[1])[axis] / 16 == pytest.approx(1, abs=0.3)


def test_face_that_is_not_found_in_the_frames_keeps_the_gains(face, untracked_warp):
    class Lost:
        topology = "mesh468"

        def track(self, image, previous):
            return None

    warp = HeadWarp(PHOTO, face, fit_face_frame(face), [], Lost())
    assert np.array_equal(warp._gain, untracked_warp._gain)


class UnproportionalDetector:
    """Finds 0.55 of the expected displacements of the points, and more of the larger ones."""

    topology = "mesh468"

    def __init__(self, face, pixels):
        self._face, self._pixels = face, pixels

    def track(self, image, previous):
        if previous.score == 0:  # Has already been tracked.
            return previous
        offset = previous.points - self._face.points
        offset -= offset.mean(0)
        factor = 0.55 * (np.linalg.norm(offset, axis=1).max() / self._pixels) ** 0.4
        return replace(previous, points=self._face.points + factor * offset, score=0.0)


def test_gain_of_the_pitch_is_corrected_until_it_fits(face, untracked_warp):
    frame = fit_face_frame(face)
    offset = untracked_warp.move_points(face.points, (0, 8, 0)) - face.points
    pixels = float(np.linalg.norm(offset - offset.mean(0), axis=1).max())
    detector = UnproportionalDetector(face, pixels)
    warp = HeadWarp(PHOTO, face, frame, [], detector)
    found = []
    for angle_deg in (-8, 8):
        points = warp.move_points(face.points, (0, angle_deg, 0))
        tracked = detector.track(PHOTO, replace(face, points=points))
        found.append(head_pose(tracked.points, face.topology)[1])
    assert (found[1] - found[0]) / 16 == pytest.approx(1, abs=0.1)


def test_points_move_as_the_tracker_finds_them(detector, face, warp):
    for pose_deg in ((12, 0, 0), (0, -8, 0), (-6, 4, 10)):
        image = turned(warp, *pose_deg)
        tracked = detector.track(image, detector.track(image, face))
        moved = warp.move_points(face.points, pose_deg)
        assert np.linalg.norm(tracked.points - moved, axis=1).mean() < 0.015 * face.box.width
        assert np.linalg.norm(moved - face.points, axis=1).mean() > 0.03 * face.box.width


def test_photo_is_unchanged_at_the_pose_of_the_photo(warp):
    for pose_deg in ((0, 0, 0), (1e-4, 0, 0)):
        assert np.abs(turned(warp, *pose_deg).astype(int) - PHOTO).max() <= 1


def test_background_does_not_move(warp):
    for pose_deg in ((15, 0, 0), (0, -10, 0), (0, 0, 15), (-15, 10, -15)):
        image = turned(warp, *pose_deg)
        for part in (np.s_[:, :60], np.s_[:, 460:], np.s_[:40, 330:], np.s_[330:]):
            assert np.array_equal(image[part], PHOTO[part])


def test_frames_change_gradually_with_the_pose(warp):
    before = turned(warp, -15, -10, -15).astype(int)
    for step in np.linspace(-1, 0, 31)[1:]:
        image = turned(warp, *(step * POSE_LIMITS_DEG)).astype(int)
        assert np.abs(image - before).mean() < 1
        before = image


def test_motion_field_does_not_fold_the_head(warp):
    x0, y0, *_ = warp._head.box
    for pose_deg in (*np.diag(POSE_LIMITS_DEG), *np.diag(-POSE_LIMITS_DEG)):
        inverse = warp._inverse_shift(limit_pose(pose_deg, warp.limits_deg))
        source = warp._head.xy + inverse
        # Positions outside the area are read at its border.
        last = np.array(warp._layers.alpha.shape[::-1]) - 1
        x, y = np.moveaxis(np.rint(source - [x0, y0]).astype(int).clip(0, last), -1, 0)
        is_head = warp._layers.alpha[y, x] > 25
        step = warp._head.xy[1, 1] - warp._head.xy[0, 0]
        right = np.diff(source[..., 0], axis=1)[is_head[:, 1:]] / step[0]
        down = np.diff(source[..., 1], axis=0)[is_head[1:]] / step[1]
        assert min(right.min(), down.min()) > 0
        assert max(right.max(), down.max()) < 6


def test_poses_are_limited_smoothly():
    angles = np.linspace(0, 60, 601)
    limited = np.array([limit_pose([a, 0, 0], POSE_LIMITS_DEG)[0] for a in angles])
    assert np.array_equal(limited[:120], angles[:120].astype(np.float32))
    assert (np.diff(limited) >= 0).all()
    assert limited[150] > 14
    assert limited.max() <= 15
    assert np.array_equal(limit_pose([-40, 0, 0], POSE_LIMITS_DEG), [-limited[400], 0, 0])


def test_a_head_without_space_around_it_is_limited(face):
    box = face.box
    tight = np.ascontiguousarray(PHOTO[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)])
    points = face.points - np.float32([int(box.x0), int(box.y0)])
    near = replace(face, box=Box(0, 0, tight.shape[1], tight.shape[0]), points=points)
    warp = HeadWarp(tight, near, fit_face_frame(near), [])
    assert warp.limits_deg[2] < 10
    image = turned(warp, 0, 0, 15, image=tight)
    edges = [np.concatenate([i[0], i[-1], i[:, 0], i[:, -1]]) for i in (image, tight)]
    assert np.abs(edges[0].astype(int) - edges[1]).max() <= 1


def test_a_face_that_the_border_cuts_is_not_torn(face):
    x0 = int(face.points[:, 0].min()) + 8
    cut = np.ascontiguousarray(PHOTO[:, x0:])
    points = face.points - np.float32([x0, 0])
    near = replace(face, box=Box(0, face.box.y0, face.box.x1 - x0, face.box.y1), points=points)
    warp = HeadWarp(cut, near, fit_face_frame(near), [])
    assert (warp.limits_deg < [6, 6, 6]).all()
    pose_deg = np.array([15, -10, 15])
    moved = warp.move_points(points, pose_deg)
    inner = points[:, 0] > 10
    assert np.linalg.norm(moved - points, axis=1).mean() > 0.5
    # Neighbouring points keep their distance, more or less.
    before, after = (np.linalg.norm(np.diff(p[inner], axis=0), axis=1) for p in (points, moved))
    assert np.percentile(after / np.maximum(before, 1), 1) > 0.4


def test_another_head_is_not_moved(face):
    shift = np.float32([2.2 * face.box.width, 0])
    x0, y0, x1, y1 = face.box
    other = replace(face, box=Box(x0 + shift[0], y0, x1 + shift[0], y1), points=face.points + shift)
    warp = HeadWarp(PHOTO, face, fit_face_frame(face), [other])
    image = turned(warp, 15, 10, 15)
    inside = np.s_[int(y0) : int(y1), int(x0 + shift[0]) : int(x1 + shift[0])]
    assert np.array_equal(image[inside], PHOTO[inside])
    assert not np.array_equal(image, PHOTO)


def test_heads_next_to_each_other_do_not_undo_their_motion(face):
    start, width = 140, 170
    pair = np.hstack([PHOTO[:360, start : start + width]] * 2)
    x0, y0, x1, y1 = face.box
    faces = [
        replace(
            face,
            box=Box(x0 + shift, y0, x1 + shift, y1),
            points=face.points + np.float32([shift, 0]),
        )
        for shift in (-start, width - start)
    ]
    first, second = (
        HeadWarp(pair, one, fit_face_frame(one), [other]) for one, other in (faces, reversed(faces))
    )
    image = turned(first, 6, 3, -4, image=pair)
    before = image.copy()
    second.draw(pair, (-6, 4, 5), image)
    middle = round(float(faces[0].box.x0 + x1 - start + width) / 2)
    moved = np.abs(before.astype(int) - pair).max(2) > 10
    assert moved[:, middle - 40 : middle - 15].sum() > 500
    assert np.array_equal(image[:, : middle - 15], before[:, : middle - 15])
    assert not np.array_equal(image, before)


def turned_pair(detector, width, *pose_deg):
    """Return a photo of two mirrored heads, and the frame in which both turn symmetrically."""
    half = PHOTO[:360, 130 : 130 + width]
    pair = np.hstack([half, half[:, ::-1]])
    faces = sorted(detector.detect(pair), key=lambda face: face.box.x0)
    turned = [
        HeadWarp(pair, face, fit_face_frame(face), [faces[1 - index]]).turned(pair, pose)
        for index, (face, pose) in enumerate(
            zip(faces, (pose_deg, np.array([-1, 1, -1]) * pose_deg), strict=True)
        )
    ]
    frame = pair.copy()
    for one in turned:
        one.clear(frame)
    for one in turned:
        one.blend(frame)
    assert np.abs(np.subtract(frame, pair, dtype=int)).max() > 100
    return pair, frame


@pytest.mark.parametrize("yaw_deg", [-10, 10])
def test_no_line_appears_between_heads_that_are_close(detector, yaw_deg):
    width = 176
    pair, frame = turned_pair(detector, width, yaw_deg, 0, 0)

    def line(image):
        """Return how much a column between the heads differs from those on both of its sides."""
        columns = image[60:110, width - 22 : width + 22].astype(int).mean(2)
        beside = np.stack([columns[:, :-6], columns[:, 6:]])
        below, above = beside.min(0) - columns[:, 3:-3], columns[:, 3:-3] - beside.max(0)
        return np.maximum(below, above).mean(0).max()

    assert line(frame) < line(pair) + 4


def test_hair_of_heads_that_touch_is_not_taken_for_background(detector):
    _, frame = turned_pair(detector, 168, 6, 4, -8)
    hair = frame[:150].astype(int)
    assert np.abs(hair - hair[:, ::-1]).mean() < 5


def test_face_without_depth_turns_less_precisely(face, detector):
    flat = replace(face, depth=None)
    warp = HeadWarp(PHOTO, flat, fit_face_frame(flat), [])
    image = turned(warp, 10, 0, 0)
    tracked = detector.track(image, detector.track(image, face))
    change = head_pose(tracked.points, "mesh468") - head_pose(face.points, "mesh468")
    assert 5 < change[0] < 14


def test_roll_turns_hair_above_the_head_rigidly(face, warp):
    """The distances between points of the face, the hair and above it stay the same."""
    up = face.points[[10]] - face.points[[152]]
    across = face.points[[263]] - face.points[[33]]
    hair = np.concatenate([face.points[[10]] + 0.6 * up + side * across for side in (-1, 0, 1)])
    points = np.concatenate([face.points[[1, 33, 263]], hair])
    moved = warp.move_points(points, (0, 0, 10))

    def distances(found):
        return np.linalg.norm(found[:, None] - found, axis=-1)

    assert np.linalg.norm(moved - points, axis=1).min() > 0.1 * face.box.width
    # The perspective changes distances by up to 2 %.
    assert np.abs(distances(moved) - distances(points)).max() < 0.02 * distances(points).max()


def test_a_moved_head_is_about_as_sharp_as_the_photo(face, warp):
    box = face.box
    part = np.s_[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]

    def sharpness(image):
        grey = cv2.cvtColor(np.ascontiguousarray(image[part]), cv2.COLOR_RGB2GRAY)
        return np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean()

    poses = ((0.3, 0.2, 0.1), (2, 1, -1), (-4, 2, 2))
    ratios = [sharpness(turned(warp, *pose_deg)) / sharpness(PHOTO) for pose_deg in poses]
    assert min(ratios) > 0.76
    assert max(ratios) < 1.05
