"""Match the colour, sharpness and grain of a generated mouth to the image.

All three are measured in the image around or under the mouth. The corrections are smoothed over
time, because a correction that changes from frame to frame is visible as flicker.

Shape suffixes: H and W are the image's, h and w the region's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.predict.compositing.mouth_region import MouthRegion, PaintedMouth, to_channels
from talkinghead.predict.compositing.stabiliser import OneEuroFilter
from talkinghead.types import FloatArray, UInt8Array

_MIN_PIXELS = 16
# Limits of green minus red, in levels: the limit for teeth in white light, and the amounts by which
# teeth and skin-coloured pixels may exceed the value of the skin.
_WHITE_TEETH, _GREENER_TEETH, _GREENER_SKIN = -8.0, 20.0, 8.0
# Lower bound of the skin's yellow fraction, which distinguishes skin from teeth.
_MIN_YELLOW = 0.08
_MAX_LOG_GAIN = 0.25
_LOG_GAIN_THRESHOLD = 0.1
_SHIFT_THRESHOLD = 0.5
_CUTOFF_HZ = 0.7

# RGB with a smaller blend weight is not visible.
_MIN_RGB_WEIGHT = 0.02
_MAX_SHARPENING = 2.5
# Regularisation of the sharpness in areas without structure, in squared grey levels.
_MIN_ENERGY = 4.0
# Variance of rounding to integer levels. It is subtracted from the measured noise, because the
# composite is rounded too.
_ROUNDING_NOISE = 1 / 12
_TILE = 256
_CONSTANT_NOISE = 0.999
# Grain is also added to warped texture with less than this fraction of the image's noise.
_CLEAN_TEXTURE = 0.9
_NOISE_KERNEL: FloatArray = (np.outer([1, -2, 1], [1, -2, 1]) / 6).astype(np.float32)


def remove_green_cast(mouth: PaintedMouth, image: UInt8Array, region: MouthRegion) -> PaintedMouth:
    """Limit the green of the model's RGB to the range of teeth and skin in the image's light.

    On skin unlike that of its training data, a generator may produce green teeth or a green haze
    around the lips. The skin ring gives the colour of the light. Teeth are distinguished from skin
    by their smaller yellow fraction.
    """
    step, ring = region.skin_ring
    skin = region.crop(image)[::step, ::step][ring].astype(np.float32)
    if len(skin) < _MIN_PIXELS:
        return mouth
    skin_level, skin_green, skin_yellow = (float(v.mean()) for v in _level_green_yellow(skin))
    x, y, width, height = cv2.boundingRect((mouth.rgb_weight > 0).view(np.uint8))
    part = slice(y, y + height), slice(x, x + width)
    teeth_limit = max(_WHITE_TEETH, skin_green * skin_level + _GREENER_TEETH)

    def excess_of(image: FloatArray, rgb_weight: FloatArray) -> FloatArray:
        level, green, yellow = _level_green_yellow(image)
        skin_likeness = np.clip(2 * yellow / max(skin_yellow, _MIN_YELLOW) - 1, 0, 1)
        limit = np.minimum(teeth_limit, skin_green * level + _GREENER_SKIN)
        limit = teeth_limit + skin_likeness * (limit - teeth_limit)
        excess = (green * level - limit) * np.minimum(2 * rgb_weight, 1)
        return np.asarray(np.maximum(excess, 0), dtype=np.float32)

    rgb, weight = mouth.image[part], mouth.rgb_weight[part]
    # Check some of the pixels first, because most mouths have no green cast.
    if not excess_of(rgb[::step, ::step], weight[::step, ::step]).any():
        return mouth
    excess = excess_of(rgb, weight)
    corrected = mouth.image.copy()
    corrected[(*part, 0)] += excess / 2
    corrected[(*part, 1)] -= excess / 2
    return replace(mouth, image=corrected)


def _level_green_yellow(image: FloatArray) -> tuple[npt.NDArray[np.floating], ...]:
    """Return the mean level of red and green, and the green and yellow fractions of RGB [..., 3].

    Green is green minus red, yellow is the level minus blue, both divided by the level.
    """
    red, green, blue = (image[..., i] for i in range(3))
    level = np.maximum((red + green) / 2, 1)
    return level, (green - red) / level, 1 - blue / level


class ColourMatcher:
    """A filter that matches the Lab mean and deviation of generated skin to the image.

    Paper: Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001.
    """

    def __init__(self) -> None:
        self._filter = OneEuroFilter(_CUTOFF_HZ)

    def reset(self) -> None:
        """Clear temporal state."""
        self._filter.reset()

    def match(
        self, mouth: FloatArray, image: UInt8Array, region: MouthRegion, time_s: float
    ) -> FloatArray:
        """Return the corrected mouth, float32 [h, w, 3] in [0, 255]."""
        step, ring = region.skin_ring
        original = region.crop(image)[::step, ::step].astype(np.float32)
        if ring.sum() < _MIN_PIXELS:
            return mouth
        target, current = (
            _statistics(pixels[ring]) for pixels in (original, mouth[::step, ::step])
        )
        log_gain = np.log(target[1] / current[1]).clip(-_MAX_LOG_GAIN, _MAX_LOG_GAIN)
        log_gain = _shrink(log_gain, _LOG_GAIN_THRESHOLD)
        shift = _shrink(target[0] - current[0], _SHIFT_THRESHOLD)
        log_gain, shift = self._filter(np.stack([log_gain, shift]), time_s)
        if not (log_gain.any() or shift.any()):
            return mouth
        gain = np.exp(log_gain)
        offset = current[0] * (1 - gain) + shift
        affine = np.hstack([np.diag(gain), offset[:, None]])
        # The change is smooth. In a large region, computing it for every pixel takes longer than
        # the remaining blending.
        return apply_coarsely(mouth, lambda rgb: _transform_lab(rgb, affine), max(1, step // 2))


def apply_coarsely(
    image: FloatArray, function: Callable[[FloatArray], FloatArray], factor: int
) -> FloatArray:
    """Return an image changed by a function that is evaluated at 1 / `factor` of the size."""
    if factor == 1:
        return function(image)
    height, width = image.shape[:2]
    size = -(-width // factor), -(-height // factor)
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
    change = cv2.resize(function(small) - small, (width, height), interpolation=cv2.INTER_LINEAR)
    return image + change


def _transform_lab(rgb: FloatArray, affine: npt.NDArray[np.floating]) -> FloatArray:
    """Return RGB in [0, 255] after an affine transform [3, 4] of its Lab values."""
    lab = cv2.transform(_to_lab(rgb), affine)
    return cv2.cvtColor(lab, cv2.COLOR_Lab2RGB).clip(0, 1) * np.float32(255)


def _shrink(value: FloatArray, threshold: float) -> FloatArray:
    """Soft-threshold a colour difference, to ignore small changes caused by skin motion."""
    return np.sign(value) * np.maximum(np.abs(value) - np.float32(threshold), 0)


def _statistics(pixels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean and standard deviation of each Lab channel of pixels [n, 3]."""
    lab = _to_lab(pixels[None])[0]
    return lab.mean(0), lab.std(0) + np.float32(1.0)


def _to_lab(rgb: FloatArray) -> FloatArray:
    return np.asarray(cv2.cvtColor(rgb.clip(0, 255) / np.float32(255), cv2.COLOR_RGB2Lab))


class DetailMatcher:
    """A filter that matches the sharpness and grain of the generated mouth to the image.

    The model's RGB is enlarged from a small image, so it is softer and has less noise than the
    source. *Sharpness* is the ratio of fine detail to coarser structure: both are larger in an open
    mouth than in a closed one. The RGB is sharpened at most to the image's sharpness, and never
    blurred.

    *Grain* with the noise level of the image's flat skin is added to the RGB, and to warped texture
    whose noise was averaged out. It has the temporal correlation of the image's noise: new in every
    frame of film, partly kept in compressed video, constant in a photo.

    Args:
        sharpen: sharpen the model's RGB.
        grain: add grain.
        seed: seed of the grain.

    Paper: Immerkaer, "Fast Noise Variance Estimation", CVIU 1996.
    """

    def __init__(self, sharpen: bool = True, grain: bool = True, seed: int = 0) -> None:
        self._sharpen, self._grain, self._seed = sharpen, grain, seed
        self._gain, self._level = OneEuroFilter(_CUTOFF_HZ), OneEuroFilter(_CUTOFF_HZ)
        bank = np.random.default_rng(seed).standard_normal((_TILE, _TILE))
        self._bank = bank.astype(np.float32)
        self.reset()

    def reset(self) -> None:
        """Clear temporal state and restart the grain from its seed."""
        self._gain.reset()
        self._level.reset()
        self._random = np.random.default_rng(self._seed)
        self._tile = self._bank
        self._previous: tuple[UInt8Array, tuple[int, int]] | None = None

    def match(
        self, mouth: PaintedMouth, image: UInt8Array, region: MouthRegion, time_s: float
    ) -> FloatArray:
        """Return the matched mouth, float32 [h, w, 3], approximately in [0, 255]."""
        noise, texture_noise, correlation = self._noise(mouth.image, image, region)
        levels = np.array([noise, min(texture_noise, noise)], np.float32)
        noise, texture_noise = self._level(levels, time_s).tolist()
        is_clean = texture_noise < _CLEAN_TEXTURE * noise
        x, y, width, height = cv2.boundingRect((mouth.rgb_weight > _MIN_RGB_WEIGHT).view(np.uint8))
        has_rgb = width * height >= _MIN_PIXELS
        if not (self._sharpen or self._grain) or not (has_rgb or is_clean):
            return mouth.image
        output, part = mouth.image.copy(), (slice(y, y + height), slice(x, x + width))
        weight = mouth.rgb_weight[part]
        if self._sharpen and has_rgb:
            original = _grey(region.crop(image)[part].astype(np.float32))
            sigma = max(0.8, 0.7 * mouth.rgb_pixel_px)
            detail, current = _detail_and_sharpness(_grey(output[part]), weight, sigma, 0)
            _, target = _detail_and_sharpness(original, weight, sigma, noise)
            log_gain = np.log(np.array([target / current], np.float32))
            gain = np.exp(self._gain(log_gain.clip(0, np.log(_MAX_SHARPENING)), time_s))
            if gain > 1:
                output[part] += to_channels(weight * (detail * (gain - 1)))
        if self._grain:
            self._update_grain(correlation)
        if self._grain and noise > 0:
            if is_clean:
                part, weight = (slice(None), slice(None)), mouth.rgb_weight
            x, y = region.origin_xy
            rows = np.arange(y + region.rows.start, y + region.rows.stop)[part[0]] % _TILE
            columns = np.arange(x + region.columns.start, x + region.columns.stop)[part[1]] % _TILE
            # The warped texture, with blend weight 1 - weight, already has noise; variances add up.
            missing = noise**2 - (texture_noise * (1 - weight)) ** 2
            output[part] += to_channels(np.sqrt(missing) * self._tile[np.ix_(rows, columns)])
        return output

    def _noise(
        self, mouth: FloatArray, image: UInt8Array, region: MouthRegion
    ) -> tuple[float, float, float]:
        """Return the noise levels on flat skin, and the correlation with the previous frame.

        Returns:
            The standard deviations of the image's and the mouth's noise, in grey levels; and the
            correlation of the image's noise with that of the previous frame.
        """
        previous, self._previous = self._previous, (image, region.origin_xy)
        step, ring = region.skin_ring
        if ring.sum() < _MIN_PIXELS:
            return 0.0, 0.0, 1.0
        current, generated = (
            _residual(pixels)[::step, ::step][ring] for pixels in (region.crop(image), mouth)
        )
        noise, texture_noise = _deviation(current, _ROUNDING_NOISE), _deviation(generated, 0)
        if noise == 0 or previous is None or previous[0] is image:
            return noise, texture_noise, 1.0
        before = _residual(_crop_previous(*previous, region))[::step, ::step][ring]
        power = float(np.sqrt((current @ current) * (before @ before)))
        return noise, texture_noise, float(current @ before) / max(power, 1e-6)

    def _update_grain(self, correlation: float) -> None:
        """Generate the next frame's grain, with the given correlation to the current grain."""
        if correlation >= _CONSTANT_NOISE:
            return
        kept = np.float32(max(correlation, 0))
        new = np.roll(self._bank, self._random.integers(_TILE, size=2), (0, 1))
        self._tile = kept * self._tile + np.sqrt(1 - kept * kept) * new


def _crop_previous(
    image: UInt8Array, origin_xy: tuple[int, int], region: MouthRegion
) -> UInt8Array:
    """Return the region in the part of the previous frame that begins at `origin_xy`.

    The edge of that part is repeated where the region extends beyond it.
    """
    shifts = region.origin_xy[0] - origin_xy[0], region.origin_xy[1] - origin_xy[1]
    columns, rows = (
        np.arange(part.start + shift, part.stop + shift).clip(0, length - 1)
        for part, shift, length in zip(
            (region.columns, region.rows), shifts, image.shape[1::-1], strict=True
        )
    )
    return np.ascontiguousarray(image[np.ix_(rows, columns)])


def _grey(rgb: FloatArray) -> FloatArray:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.float32)


def _detail_and_sharpness(
    grey: FloatArray, weight: FloatArray, sigma: float, noise: float
) -> tuple[FloatArray, float]:
    """Return the fine detail [n, m] of grey levels [n, m], and the ratio to coarser structure."""
    smooth = np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma), dtype=np.float32)
    detail, structure = grey - smooth, smooth - _blur_coarsely(smooth, 2 * sigma)
    fine, coarse = (float((weight * b * b).sum() / weight.sum()) for b in (detail, structure))
    return detail, float(np.sqrt((max(fine - noise * noise, 0) + 1e-3) / (coarse + _MIN_ENERGY)))


def _blur_coarsely(grey: FloatArray, sigma: float) -> FloatArray:
    """Return the Gaussian blur of smooth grey levels; a wide one is computed at a smaller size."""
    factor = max(1, int(sigma / 2.5))
    if factor == 1:
        return np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma), dtype=np.float32)
    height, width = grey.shape
    size = -(-width // factor), -(-height // factor)
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), sigma / factor)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR))


def _deviation(residual: FloatArray, rounding: float) -> float:
    """Return the standard deviation of a noise residual, after subtracting variance `rounding`.

    The median is robust against the few large residuals of hairs and folds.
    """
    variance = (1.4826 * float(np.median(np.abs(residual)))) ** 2 - rounding
    return float(np.sqrt(max(variance, 0)))


def _residual(pixels: UInt8Array | FloatArray) -> FloatArray:
    """Return pixels [h, w, 3] without smooth gradients and straight edges, as float32 [h, w]."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.filter2D(grey, cv2.CV_32F, _NOISE_KERNEL))
