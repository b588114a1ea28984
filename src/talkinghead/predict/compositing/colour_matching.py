"""Making a generated mouth look as if the picture's own camera had taken it.

Colour, sharpness and grain are measured in the picture around or under the mouth. What is measured
is smoothed over time: a camera does not change from frame to frame, and a correction that does is
seen as flicker.

Shape suffixes: H and W are the picture's, h and w the region's.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.predict.compositing.mouth_region import MouthRegion, PaintedMouth
from talkinghead.predict.compositing.stabiliser import OneEuroFilter
from talkinghead.types import FloatArray, UInt8Array

_RING_CENTRE: FloatArray = np.array([0.5, 0.32], dtype=np.float32)
_RING_RADII: FloatArray = np.array([0.36, 0.30], dtype=np.float32)
_RING_INNER = 0.75
_RING_BOTTOM = 0.55
_MIN_PIXELS = 16
_STATISTICS_SIDE = 96
# Green less red, in levels: of teeth in white light, and by how much theirs, and that of paint as
# yellow as the skin, may exceed the skin's.
_WHITE_TEETH, _GREENER_TEETH, _GREENER_SKIN = -8.0, 20.0, 8.0
# Skin with a smaller share of yellow than this is not told from teeth by it.
_MIN_YELLOW = 0.08
_MAX_LOG_GAIN = 0.25
_QUIET_LOG_GAIN = 0.1
_QUIET_SHIFT = 0.5
_SLOW_HZ = 0.7

# Less paint than this is not seen.
_MIN_SHARE = 0.02
_MAX_SHARPENING = 2.5
# The energy, in squared grey levels, below which structure tells nothing about sharpness.
_FAINT = 4.0
# Rounding to whole levels is noise too, and is done to the composite as well.
_ROUNDING_NOISE = 1 / 12
_TILE = 256
_UNCHANGED = 0.999
# A texture with less of the picture's noise than this gets grain too, not its paint alone.
_CLEAN = 0.9
_NOISE_KERNEL: FloatArray = (np.outer([1, -2, 1], [1, -2, 1]) / 6).astype(np.float32)


def skin_ring(region: MouthRegion) -> tuple[int, npt.NDArray[np.bool_]]:
    """Skin around the mouth: every how many-th pixel to look at, and which of those, bool [n, m].

    The ring leaves out its lower part: the chin moves there, and what is behind it is not skin.
    """
    step = max(1, round(region.side / _STATISTICS_SIDE))
    places = region.places[::step, ::step]
    across = (places - _RING_CENTRE) / _RING_RADII
    distance = np.hypot(across[..., 0], across[..., 1])
    ring = (distance > _RING_INNER) & (distance < 1.0) & (places[..., 1] < _RING_BOTTOM)
    if region.visible is not None:
        ring &= region.visible[::step, ::step] > 0.99
    return step, ring


def without_green(mouth: PaintedMouth, picture: UInt8Array, region: MouthRegion) -> PaintedMouth:
    """The mouth, with paint that is greener than any teeth, or than skin, as white or red as they.

    The skin says what light there is. On skin that is far from what it was trained with, a
    generator may paint green teeth, or a green haze around the lips. Teeth are told from skin by
    how little yellow is in them.
    """
    step, ring = skin_ring(region)
    skin = region.of(picture)[::step, ::step][ring].astype(np.float32)
    if len(skin) < _MIN_PIXELS:
        return mouth
    skin_light, skin_green, skin_yellow = (float(v.mean()) for v in _light_and_colour(skin))
    light, green, yellow = _light_and_colour(mouth.image)
    teeth = max(_WHITE_TEETH, skin_green * skin_light + _GREENER_TEETH)
    like_skin = np.clip(2 * yellow / max(skin_yellow, _MIN_YELLOW) - 1, 0, 1)
    allowed = np.minimum(teeth, skin_green * light + _GREENER_SKIN)
    allowed = teeth + like_skin * (allowed - teeth)
    excess = np.maximum((green * light - allowed) * np.minimum(2 * mouth.share, 1), 0)
    if not excess.any():
        return mouth
    image = mouth.image.copy()
    image[..., 0] += excess / 2
    image[..., 1] -= excess / 2
    return replace(mouth, image=image)


def _light_and_colour(image: FloatArray) -> tuple[npt.NDArray[np.floating], ...]:
    """Of float32 [..., 3] RGB: the level of red and green, and how much green and yellow it has.

    The latter are shares of it: green less red, and the level less blue.
    """
    red, green, blue = (image[..., i] for i in range(3))
    level = np.maximum((red + green) / 2, 1)
    return level, (green - red) / level, 1 - blue / level


class ColourMatcher:
    """Gives generated skin the mean and spread, in Lab, of the skin in a ring around the mouth.

    Paper: Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001.
    """

    def __init__(self) -> None:
        self._filter = OneEuroFilter(min_cutoff_hz=_SLOW_HZ, speed_coefficient=0.0)

    def reset(self) -> None:
        """Forgets earlier frames."""
        self._filter.reset()

    def match(
        self, mouth: FloatArray, picture: UInt8Array, region: MouthRegion, time_s: float
    ) -> FloatArray:
        """The corrected mouth, float32 [h, w, 3] in [0, 255]."""
        step, ring = skin_ring(region)
        original = region.of(picture)[::step, ::step].astype(np.float32)
        if ring.sum() < _MIN_PIXELS:
            return mouth
        wanted, given = (_statistics(pixels[ring]) for pixels in (original, mouth[::step, ::step]))
        log_gain = np.log(wanted[1] / given[1]).clip(-_MAX_LOG_GAIN, _MAX_LOG_GAIN)
        correction = np.stack(
            [_shrink(log_gain, _QUIET_LOG_GAIN), _shrink(wanted[0] - given[0], _QUIET_SHIFT)]
        )
        log_gain, shift = self._filter(correction, time_s)
        if not (log_gain.any() or shift.any()):
            return mouth
        gain = np.exp(log_gain)
        lab = _to_lab(mouth)
        lab *= gain
        lab += given[0] * (1 - gain) + shift
        return _from_lab(lab)


def _shrink(value: FloatArray, quiet: float) -> FloatArray:
    """Towards zero by `quiet`: so small a difference is motion in the ring, not colour."""
    return np.sign(value) * np.maximum(np.abs(value) - np.float32(quiet), 0)


def _statistics(pixels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation of each Lab channel of pixels [n, 3]."""
    lab = _to_lab(pixels[None])[0]
    return lab.mean(0), lab.std(0) + np.float32(1.0)


def _to_lab(rgb: FloatArray) -> FloatArray:
    return np.asarray(cv2.cvtColor(rgb.clip(0, 255) / np.float32(255), cv2.COLOR_RGB2Lab))


def _from_lab(lab: FloatArray) -> FloatArray:
    return cv2.cvtColor(lab, cv2.COLOR_Lab2RGB).clip(0, 1) * np.float32(255)


class DetailMatcher:
    """Sharpens what is painted as far as the picture is sharp, and gives it the picture's grain.

    Paint comes from a few pixels (96 x 96) made larger, so it is softer and cleaner than what is
    around it. *Sharpness* is fine detail against coarser structure, of the picture's mouth and of
    the painted one: a ratio, because an open mouth has more of both than a closed one. Paint is
    never made sharper than the picture, and never blurred.

    *Grain* is added as strong as the noise on the picture's flat skin, to the paint, and to texture
    whose own noise was averaged out. It changes from frame to frame as much as that noise does:
    film's grain is new in every frame, that of a compressed video now and then, a photo's never.

    Args:
        sharpen: whether to.
        grain: whether to.
        seed: of the grain.

    Paper: Immerkaer, "Fast Noise Variance Estimation", CVIU 1996.
    """

    def __init__(self, sharpen: bool = True, grain: bool = True, seed: int = 0) -> None:
        self._sharpen = sharpen
        self._grain = grain
        self._seed = seed
        self._gain = OneEuroFilter(min_cutoff_hz=_SLOW_HZ, speed_coefficient=0.0)
        self._level = OneEuroFilter(min_cutoff_hz=_SLOW_HZ, speed_coefficient=0.0)
        bank = np.random.default_rng(seed).standard_normal((_TILE, _TILE))
        self._bank = bank.astype(np.float32)
        self.reset()

    def reset(self) -> None:
        """Forgets earlier frames, and begins the grain again."""
        self._gain.reset()
        self._level.reset()
        self._random = np.random.default_rng(self._seed)
        self._tile = self._bank
        self._previous: UInt8Array | None = None

    def match(
        self, mouth: PaintedMouth, picture: UInt8Array, region: MouthRegion, time_s: float
    ) -> FloatArray:
        """The mouth's image with its paint matched: float32 [h, w, 3] about [0, 255]."""
        noise, texture_noise, changing = self._noise(mouth.image, picture, region)
        levels = np.array([noise, min(texture_noise, noise)], np.float32)
        noise, texture_noise = self._level(levels, time_s).tolist()
        is_clean = texture_noise < _CLEAN * noise
        x, y, width, height = cv2.boundingRect((mouth.share > _MIN_SHARE).view(np.uint8))
        is_painted = width * height >= _MIN_PIXELS
        if not (self._sharpen or self._grain) or not (is_painted or is_clean):
            return mouth.image
        image, part = mouth.image.copy(), (slice(y, y + height), slice(x, x + width))
        share = mouth.share[part]
        if self._sharpen and is_painted:
            original = _grey(region.of(picture)[part].astype(np.float32))
            detail = self._missing_detail(image[part], original, share, mouth.pitch, noise, time_s)
            image[part] += (share * detail)[..., None]
        if self._grain:
            self._stir(changing)
            if is_clean:
                part, share = (slice(None), slice(None)), mouth.share
            rows = np.arange(region.rows.start, region.rows.stop)[part[0]] % _TILE
            columns = np.arange(region.columns.start, region.columns.stop)[part[1]] % _TILE
            # The rest, 1 - share, is the reference's and has its own: variances add up.
            missing = noise**2 - (texture_noise * (1 - share)) ** 2
            image[part] += (np.sqrt(missing) * self._tile[np.ix_(rows, columns)])[..., None]
        return image

    def _missing_detail(
        self,
        painted: FloatArray,
        original: FloatArray,
        share: FloatArray,
        pitch: float,
        noise: float,
        time_s: float,
    ) -> FloatArray:
        """What to add to the paint's brightness, float32 [n, m]."""
        sigma = max(0.8, 0.7 * pitch)
        given_detail, given = _sharpness(_grey(painted), share, sigma, 0)
        _, wanted = _sharpness(original, share, sigma, noise)
        log_gain = np.log(np.array([wanted / given], np.float32)).clip(0, np.log(_MAX_SHARPENING))
        return given_detail * (np.exp(self._gain(log_gain, time_s)) - 1)

    def _noise(
        self, mouth: FloatArray, picture: UInt8Array, region: MouthRegion
    ) -> tuple[float, float, float]:
        """Deviation of the noise on flat skin, in grey levels, and its correlation in time.

        The picture's, the mouth's, and how much the picture's keeps from the frame before.
        """
        previous, self._previous = self._previous, picture
        step, ring = skin_ring(region)
        if ring.sum() < _MIN_PIXELS:
            return 0.0, 0.0, 1.0
        now, drawn = (
            _residual(pixels)[::step, ::step][ring] for pixels in (region.of(picture), mouth)
        )
        noise, texture_noise = _deviation(now, _ROUNDING_NOISE), _deviation(drawn, 0)
        if noise == 0 or previous is None or previous is picture:
            return noise, texture_noise, 1.0
        before = _residual(region.of(previous))[::step, ::step][ring]
        power = float(np.sqrt((now @ now) * (before @ before)))
        return noise, texture_noise, float(now @ before) / max(power, 1e-6)

    def _stir(self, correlation: float) -> None:
        """The next frame's grain, which has this correlation with the last one's."""
        if correlation >= _UNCHANGED:
            return
        kept = np.float32(max(correlation, 0))
        fresh = np.roll(self._bank, self._random.integers(_TILE, size=2), (0, 1))
        self._tile = kept * self._tile + np.sqrt(1 - kept * kept) * fresh


def _grey(rgb: FloatArray) -> FloatArray:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.float32)


def _sharpness(
    grey: FloatArray, weight: FloatArray, sigma: float, noise: float
) -> tuple[FloatArray, float]:
    """Fine detail [n, m] of grey levels [n, m], and its strength against coarser structure."""
    smooth = cv2.GaussianBlur(grey, (0, 0), sigma)
    detail, structure = grey - smooth, smooth - cv2.GaussianBlur(smooth, (0, 0), 2 * sigma)
    fine, coarse = (float((weight * b * b).sum() / weight.sum()) for b in (detail, structure))
    return detail, float(np.sqrt((max(fine - noise * noise, 0) + 1e-3) / (coarse + _FAINT)))


def _deviation(residual: FloatArray, rounding: float) -> float:
    """Of noise, from what it leaves, less the variance `rounding`; by the median of it.

    For hairs and folds are few but strong.
    """
    variance = (1.4826 * float(np.median(np.abs(residual)))) ** 2 - rounding
    return float(np.sqrt(max(variance, 0)))


def _residual(pixels: UInt8Array | FloatArray) -> FloatArray:
    """What smooth shades and straight edges leave nothing of: float32 [h, w] of [h, w, 3]."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.filter2D(grey, cv2.CV_32F, _NOISE_KERNEL))
