"""Detection of shot changes: hard cuts, dissolves, wipes, and fades through a plain image."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from talkinghead.media.decoding.video_image import ImageLike, VideoImage
from talkinghead.types import FloatArray

# Thresholds of the mean difference between thumbnails, in grey levels. Measured differences: below
# 1 for a talking head before a still background, below 13 for a moving camera, at least 9 between
# shots of one scene, at least 20 between shots of different scenes.
_CUT_MIN, _CUT_MAX = 8.0, 20.0
_CUT_RATIO, _CUT_RATIO_ABOVE = 10.0, 3.0
_INITIAL_DIFFERENCE = 2.0
# Maximum difference of a repeated frame, relative to the usual or the preceding difference
# (measured after compression: 0.02 to 0.4), and maximum number of repeats of a frame: in 60
# frames/s, a frame of 25 frames/s is repeated once or twice, a frame of 15 frames/s three times.
_REPEATED_RATIO, _MAX_REPEATS = 0.4, 3
# Number of frames whose numbers of repeats are known.
_NUM_RECENT = 8
# Minimum correlation of thumbnails that show the same scene. Measured: at least 0.947 at key frames
# after hard compression, at most 0.898 between persons of GRID before the same background.
_SAME_SCENE = 0.93
_THUMBNAIL_SAMPLES = 180
_THUMBNAIL_SIDE = 32
# Numbers of frames between the images that are compared as the ends of a gradual change.
_SPANS = (6, 8, 10, 13, 16, 20, 25, 31, 38, 46, 56)
_MIN_CHANGE = 8.0
# Ranges of the progress of a gradual change, from 0 to 1, in which a frame shows both shots.
_MIXED, _CLEARLY_MIXED = (0.04, 0.97), (0.2, 0.8)
# Minimum number of mixed frames, and maximum progress from a frame to the next. After hard
# compression, the frames between two P-frames (up to three in x264) are mixtures of these, and a
# key frame differs much from the frame before, as errors of prediction have accumulated.
_MIN_MIXED, _MAX_STEP = 5, 0.45
# Maximum progress in the first and the last frame, relative to a change that is uniform in time.
_SETTLED_RATE = 0.5
# Mean difference of successive thumbnails of a talking person, in levels.
_STILL = 0.5
_MAX_DISSOLVE_ERROR, _MAX_WIPE_ERROR = 0.25, 0.12
# A wipe changes most of the image, unlike a moving person.
_WIPE_DIFFERENCE, _MIN_WIPE_AREA = 12.0, 0.5
# Minimum fraction of a change that an affine map of the colours (a change of light) leaves.
_MIN_NEW_CONTENT = 0.35
# Maximum fraction of a change that motion leaves: 0.29 to 0.50 for nods and turns of talking heads
# (nine in five minutes of video), 0.69 to 1.09 for dissolves between persons (0.44 to 0.58 for one
# pair of 20, before the same background).
_MAX_AFTER_MOTION = 0.6
_FLOW_SIDE = 128
# Standard deviations, in levels, of a plain image and of an image that is not plain.
_PLAIN, _NOT_PLAIN = 5.0, 8.0


class ShotDetector:
    """Detector of shot changes, which needs no future frames.

    A cut is a frame difference much larger than the preceding ones, which neither a change of the
    light nor a key frame of a hard compressed video explains. A dissolve or a wipe is detected at
    its end: the frames before are mixtures of the first and the last image. A fast transition, such
    as a push, ends with the large differences. An image after a plain one (black, white or of one
    colour) starts a shot too.
    Repeated frames, as in a video of 25 frames/s that was converted to 60 frames/s, are ignored.

    Attributes:
        num_mixed: after `update` returned True, the number of preceding frames that show parts of
            both shots.
    """

    def __init__(self) -> None:
        self.num_mixed = 0
        # Thumbnails and numbers of the frames that are not repeated.
        self._thumbnails: deque[FloatArray] = deque(maxlen=_SPANS[-1] + 1)
        self._numbers: deque[int] = deque(maxlen=_SPANS[-1] + 1)
        self._number = 0
        self._previous: FloatArray | None = None
        self._usual = self._last_difference = _INITIAL_DIFFERENCE
        # Numbers of repeats of the last frame that is not repeated and of those before it.
        self._num_repeats = 0
        self._recent_repeats: deque[int] = deque([0], maxlen=_NUM_RECENT)
        self._is_plain = False
        # Number of consecutive frame differences above the threshold of a cut, and the first one.
        self._num_changed, self._first_changed = 0, 0

    def update(self, image: ImageLike) -> bool:
        """Return whether an image starts a new shot; the first image does not."""
        thumbnail = _thumbnail(image)
        self._number += 1
        self.num_mixed = 0
        leaves_plain_image = self._leaves_plain_image(thumbnail)
        previous, self._previous = self._previous, thumbnail
        if previous is None:
            self._keep(thumbnail)
            return False
        if self._is_repeated(_difference(thumbnail, previous)) and not leaves_plain_image:
            return False
        starts_shot = self._is_cut(thumbnail, self._thumbnails[-1]) or leaves_plain_image
        self._keep(thumbnail)
        if not starts_shot and not self._num_changed:
            self.num_mixed = self._count_mixed()
            starts_shot = self.num_mixed > 0
        if self.num_mixed >= _MIN_MIXED or leaves_plain_image:
            # After a cut the images are kept: it may be the beginning of a gradual change.
            self._thumbnails.clear()
            self._numbers.clear()
            self._keep(thumbnail)
        return starts_shot

    def _keep(self, thumbnail: FloatArray) -> None:
        self._thumbnails.append(thumbnail)
        self._numbers.append(self._number)

    def _is_repeated(self, difference: float) -> bool:
        """Return whether a frame repeats the preceding one, from which it has this difference.

        It does not if recent frames have fewer repeats: then the image is static, as at the end of
        a dissolve.
        """
        if difference > _REPEATED_RATIO * max(self._usual, self._last_difference):
            repeats = self._num_repeats if self._num_repeats <= _MAX_REPEATS else 0
            self._recent_repeats.append(repeats)
            self._num_repeats = 0
            return False
        self._num_repeats += 1
        return self._num_repeats <= max(self._recent_repeats)

    def _is_cut(self, thumbnail: FloatArray, previous: FloatArray) -> bool:
        """Return whether a cut, or the end of a fast transition such as a push, precedes a frame.

        During a fast transition, every frame difference is above the threshold of a cut.
        """
        self._last_difference = difference = _difference(thumbnail, previous)
        threshold = max(_CUT_MIN, min(_CUT_RATIO * self._usual, _CUT_MAX))
        threshold = max(threshold, _CUT_RATIO_ABOVE * self._usual)
        if difference > threshold and not _explained_by_light(previous, thumbnail):
            self._num_changed += 1
            if self._num_changed == 1:
                self._first_changed = self._number
            return self._num_changed == 1 and _correlation(previous, thumbnail) < _SAME_SCENE
        num_changed, self._num_changed = self._num_changed, 0
        if num_changed > 1:
            self.num_mixed = self._number - self._first_changed
            return True
        self._usual += 0.3 * (min(difference, threshold) - self._usual)
        return False

    def _leaves_plain_image(self, thumbnail: FloatArray) -> bool:
        deviation = float(thumbnail.std(axis=(0, 1)).max())
        was_plain = self._is_plain
        self._is_plain = deviation < (_NOT_PLAIN if was_plain else _PLAIN)
        return was_plain and not self._is_plain

    def _count_mixed(self) -> int:
        """Return the number of mixed frames of a gradual change that ends here; 0 if none does."""
        last = self._thumbnails[-1]
        for span in _SPANS:
            if span >= len(self._thumbnails):
                return 0
            first = self._thumbnails[-1 - span]
            if _difference(last, first) >= _MIN_CHANGE:
                frames = np.stack(list(self._thumbnails)[-1 - span :])
                if num_mixed := _count_mixed_frames(frames):
                    return self._number - self._numbers[-1 - num_mixed]
        return 0


def _thumbnail(image: ImageLike) -> FloatArray:
    # Large images are subsampled first, as averaging all pixels is slow.
    step = max(1, min(image.shape[:2]) // _THUMBNAIL_SAMPLES)
    size = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    part = image.thumbnail(step) if isinstance(image, VideoImage) else image[::step, ::step]
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def _difference(first: FloatArray, last: FloatArray) -> float:
    return float(np.abs(last - first).mean())


def _correlation(first: FloatArray, last: FloatArray) -> float:
    """Return the correlation of two thumbnails without their mean colours."""
    a, b = first - first.mean(axis=(0, 1)), last - last.mean(axis=(0, 1))
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-6))


def _count_mixed_frames(frames: FloatArray) -> int:
    """Return the number of frames [T, 32, 32, 3] from the first mixture of the ends to the last.

    The result is 0 if the frames are not a gradual change from one shot to another.
    """
    first, last = frames[0], frames[-1]
    change = last - first
    rate = _SETTLED_RATE / (len(frames) - 1)
    still = rate * float(np.abs(change).mean()) + _STILL
    ends = np.abs(frames[1] - first).mean(), np.abs(last - frames[-2]).mean()
    if max(ends) > still:
        return 0
    power = max(float((change * change).sum()), 1e-6)
    progress = np.asarray(np.tensordot(frames - first, change, 3) / power, np.float32)
    steps = np.diff(progress)
    if max(steps[0], steps[-1]) > rate or steps.min() < -rate or steps.max() > _MAX_STEP:
        return 0
    mixed = np.flatnonzero((progress > _MIXED[0]) & (progress < _MIXED[1]))
    clear = (progress > _CLEARLY_MIXED[0]) & (progress < _CLEARLY_MIXED[1])
    if (
        len(mixed) < _MIN_MIXED
        or clear.sum() < 2
        or not _is_mixture(frames[clear], progress[clear], first, last)
    ):
        return 0
    if _explained_by_light(first, last) or _explained_by_light(last, first):
        return 0
    if _explained_by_motion(first, last):
        return 0
    return int(len(frames) - 1 - mixed[0])


def _is_mixture(
    frames: FloatArray, progress: FloatArray, first: FloatArray, last: FloatArray
) -> bool:
    """Return whether frames [T, 32, 32, 3] are a dissolve or a wipe between two images."""
    change = last - first
    mixtures = first + progress[:, None, None, None].astype(np.float32) * change
    error = np.abs(frames - mixtures).mean() / np.abs(change).mean()
    if error < _MAX_DISSOLVE_ERROR:
        return True
    # In a wipe, each cell shows one of the images, or a mixture at the border.
    apart = np.linalg.norm(change, axis=-1)
    detour = np.linalg.norm(frames - first, axis=-1) + np.linalg.norm(last - frames, axis=-1)
    error = (detour - apart).mean() / apart.mean()
    return bool(error < _MAX_WIPE_ERROR and (apart > _WIPE_DIFFERENCE).mean() > _MIN_WIPE_AREA)


def _explained_by_light(first: FloatArray, last: FloatArray) -> bool:
    """Return whether an affine map of the colours explains most of the change of an image."""
    x, y = first.reshape(-1, 3), last.reshape(-1, 3)
    x0, y0 = x - x.mean(0), y - y.mean(0)
    covariance = x0.T @ x0 + len(x0) * np.eye(3, dtype=np.float32)
    rest = float(np.abs(y0 - x0 @ np.linalg.solve(covariance, x0.T @ y0)).mean())
    return rest < _MIN_NEW_CONTENT * float(np.abs(y - x).mean())


def _explained_by_motion(first: FloatArray, last: FloatArray) -> bool:
    """Return whether the last image is mostly the first with moved parts, such as a head.

    A motion by less than a cell of the thumbnail changes it as a dissolve does.

    Paper: Farnebäck, "Two-frame motion estimation based on polynomial expansion", 2003.
    """
    side = (_FLOW_SIDE, _FLOW_SIDE)
    before, after = (cv2.resize(i, side, interpolation=cv2.INTER_CUBIC) for i in (first, last))
    a, b = (
        cv2.cvtColor(image.clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        for image in (after, before)
    )
    start = np.zeros((*side, 2), np.float32)
    flow = cv2.calcOpticalFlowFarneback(a, b, start, 0.5, 4, 21, 5, 7, 1.5, 0)
    x, y = np.meshgrid(*[np.arange(_FLOW_SIDE, dtype=np.float32)] * 2)
    x, y = x + flow[..., 0], y + flow[..., 1]
    moved = cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    rest = float(np.abs(moved - after).mean())
    return rest < _MAX_AFTER_MOTION * float(np.abs(before - after).mean())
