"""Tests of batch augmentation."""

import pytest
import torch
from skimage import data

from talkinghead.data.augmentation.batch_augmentation import BatchAugmentation, warp_vocal_tract
from talkinghead.data.augmentation.finished_batch import finish_batch
from talkinghead.data.data_options import AugmentationOptions
from talkinghead.errors import UsageError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import MIRRORED_LIPS, NOSE_LINE, masked_face, mouth_crop
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.types import AVSpec

SPEC = AVSpec()
# Place twenty lip points in the mouth box.
LIPS = torch.stack([128 + 30 * torch.linspace(-1, 1, 20), torch.linspace(150, 190, 20)], -1)
FULL = vars(AugmentationOptions())
NOTHING = dict.fromkeys(FULL, 0.0)
UNDAMAGED = FULL | {name: 0.0 for name in FULL if name.startswith("reference_")}
IMAGES = ("reference_face", "masked_face", "mouths", "mean_mouth")


def make_batch(size=3, frames=2):
    portrait = torch.from_numpy(data.astronaut()[:256, 96:352]).permute(2, 0, 1)
    mel = torch.rand(size, 80, 80) * 4 - 2
    mel[:, :, :10] = MEL_SILENCE
    return {
        "reference_face": portrait.expand(size, -1, -1, -1),
        "mean_face": portrait.expand(size, -1, -1, -1),
        "faces": portrait.expand(size, frames, -1, -1, -1),
        "mel": mel,
        "mel_negative": mel.flip(-1),
        "window_starts": torch.arange(0, 64, 3)[:21].expand(size, -1),
        "lips": torch.zeros(size, 21, 20, 2),
        "lip_points": LIPS.expand(size, frames, -1, -1),
        "reference_lips": LIPS.expand(size, -1, -1),
        "index": torch.arange(12, 12 + size),
        "clip_index": torch.zeros(size),
        "start": torch.zeros(size),
        "clip": ["a/1"] * size,
        "speaker": ["a"] * size,
    }


def augment(seed=0, batch=None, **options):
    augmentation = BatchAugmentation(SPEC, AugmentationOptions(**(NOTHING | options)), seed)
    return finish_batch(batch or make_batch(), SPEC, augmentation)


def test_full_augmentation_keeps_shapes_and_ranges_and_no_augmentation_changes_nothing():
    batch = make_batch()
    plain, full, same = finish_batch(batch, SPEC), augment(**FULL), augment(batch=batch)
    for name in (*IMAGES, "mel", "mel_negative"):
        assert full[name].shape == plain[name].shape
        assert full[name].dtype == torch.float32
        assert not torch.allclose(full[name], plain[name], atol=0.01)
        torch.testing.assert_close(same[name], plain[name], atol=2e-3, rtol=0)
    for name in IMAGES:
        assert 0 <= full[name].min() <= full[name].max() <= 1
    # Saturation and hue do not change grey.
    grey = torch.full((3, 2, 3, 256, 256), 90, dtype=torch.uint8)
    mouths = augment(batch=batch | {"faces": grey}, saturation=0.4, hue=12.0)["mouths"]
    torch.testing.assert_close(mouths, torch.full_like(mouths, 90 / 255))
    assert MEL_SILENCE <= full["mel"].min() <= full["mel"].max() <= 4
    assert full["mel"].shape == (3, 21, 80, 16)


def test_result_depends_on_seed_and_sample_number_only():
    batch = make_batch()
    later = batch | {"index": batch["index"] + 3}
    torch.manual_seed(5)
    first, after = augment(batch=batch, **FULL), torch.rand(1)
    torch.manual_seed(6)
    again = augment(batch=batch, **FULL)
    for name in ("mouths", "masked_face", "reference_face", "mel"):
        assert torch.equal(first[name], again[name])
    assert not torch.equal(first["mouths"], augment(1, batch, **FULL)["mouths"])
    assert not torch.equal(first["mouths"], augment(0, later, **FULL)["mouths"])
    # The global random state is not changed either.
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


def test_images_of_a_sample_change_equally_and_samples_differ():
    batch = augment(**UNDAMAGED)
    reference, mouths = batch["reference_face"], batch["mouths"]
    torch.testing.assert_close(mouth_crop(reference[:, None], SPEC)[:, 0], mouths[:, 0])
    torch.testing.assert_close(batch["mean_mouth"], mouths[:, 0])
    # The masked face is sampled at half the size, not averaged.
    around = masked_face(reference, SPEC)
    assert (around - batch["masked_face"][:, 0]).abs().mean() < 0.01
    torch.testing.assert_close(mouths[:, 0], mouths[:, 1])
    assert not torch.allclose(mouths[0], mouths[1], atol=0.05)


@pytest.mark.parametrize(
    "name",
    ["reference_blur", "reference_noise", "reference_jpeg", "reference_pose", "reference_smile"],
)
def test_changes_of_the_reference_affect_no_other_image(name):
    batch = make_batch()
    strength = 0.1 if name == "reference_pose" else 1.0
    plain, changed = augment(batch=batch), augment(batch=batch, **{name: strength})
    for image in ("masked_face", "mouths", "mean_mouth"):
        assert torch.equal(changed[image], plain[image])
    moved = (changed["reference_face"] - plain["reference_face"]).abs().mean(1)
    assert (moved.mean((1, 2)) > 1e-3).all()
    if name == "reference_pose":
        rows, nose = moved.mean(2), round(NOSE_LINE * SPEC.face_size)
        assert (rows[:, nose - 1 : nose + 1].mean(1) < 0.2 * rows.mean(1)).all()
        assert not torch.allclose(moved[0], moved[1])
    if name == "reference_smile":
        x0, y0, x1, y1 = (int(v) for v in SPEC.mouth_box)
        moved[:, y0:y1, x0:x1] = 0
        assert moved.max() < 0.02


def test_rotation_is_about_the_mouth_and_flip_mirrors_images_angles_and_lips():
    batch = make_batch() | {"head_turn": torch.tensor([[10.0, 20.0, 30.0]]).expand(3, 2, 3)}
    plain, flipped = augment(batch=batch), augment(batch=batch, flip=1.0)
    torch.testing.assert_close(flipped["mouths"], plain["mouths"].flip(-1), atol=2e-3, rtol=0)
    change = augment(batch=batch, rotation=10.0)["mouths"] - plain["mouths"]
    assert change.abs().mean() > 0.01
    assert change[..., 47:49, 47:49].abs().max() < 0.1
    warp = {"rotation": 10.0, "scale": 0.15, "elastic": 0.015}
    assert torch.equal(augment(batch=batch, **warp)["head_turn"], batch["head_turn"])
    mirrored = augment(batch=batch, flip=1.0, **warp)["head_turn"]
    assert torch.equal(mirrored, torch.tensor([-10.0, 20.0, -30.0]).expand(3, 2, 3))
    points, mirrored = plain["lip_points"], flipped["lip_points"][..., MIRRORED_LIPS, :]
    assert torch.allclose(points, LIPS.expand_as(points), atol=0.1)
    assert torch.allclose(mirrored[..., 0], 255 - points[..., 0], atol=0.1)
    assert torch.allclose(mirrored[..., 1], points[..., 1], atol=0.1)


def test_turn_narrows_one_side_and_elastic_warp_is_smooth():
    column = torch.arange(256, dtype=torch.uint8).expand(3, 256, 256)
    batch = make_batch() | {"reference_face": column.expand(3, -1, -1, -1).contiguous()}
    turned = augment(batch=batch, turn=0.5)["reference_face"][:, 0, 128] * 255
    left, right = turned[:, 128] - turned[:, 64], turned[:, 192] - turned[:, 128]
    assert ((left - right).abs() > 0.5).all()
    assert (turned[:, 128] - 128).abs().max() < 1
    assert turned.diff(dim=-1).min() >= 0
    warped = augment(batch=batch, elastic=0.015)["reference_face"][:, 0] * 255
    shift = (warped - column[0])[:, 20:-20, 20:-20]
    assert 0.5 < shift.abs().max() < 0.015 * 256 * 4
    assert shift.diff(dim=-1).abs().max() < 0.5


def test_lip_points_follow_the_warp_and_unknown_ones_stay_nan():
    batch = make_batch() | {"lip_points": LIPS.repeat(3, 2, 1, 1)}
    batch["lip_points"][1, 1] = torch.nan
    x, y = LIPS[7].round().int().tolist()
    for name in ("reference_face", "faces"):
        batch[name] = torch.zeros_like(batch[name])
        batch[name][..., y - 1 : y + 2, x - 1 : x + 2] = 255
    colours = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    warp = {"turn": 0.5, "aspect": 0.25, "flip": 0.0, "reference_pose": 0.1}
    warped = augment(batch=batch, **UNDAMAGED | colours | warp)
    face = warped["reference_face"].mean(1)
    places = torch.stack(torch.meshgrid(*[torch.arange(256.0)] * 2, indexing="xy"), -1)
    seen = (face[..., None] * places).sum((1, 2)) / face.sum((1, 2))[:, None]
    assert (warped["reference_lips"][:, 7] - seen).abs().max() < 1
    corner, scale = torch.tensor([SPEC.mouth_x, SPEC.mouth_y]), SPEC.mouth_side / SPEC.mouth_size
    mouth = warped["mouths"][:, 0].mean(1)
    seen = (mouth[..., None] * places[:96, :96]).sum((1, 2)) / mouth.sum((1, 2))[:, None]
    seen = (seen + 0.5) * scale - 0.5 + corner
    assert (warped["lip_points"][:, 0, 7] - seen).abs().max() < 1.5
    unknown = warped["lip_points"].isnan().flatten(2).all(-1)
    assert unknown.tolist() == [[False, False], [False, True], [False, False]]


def test_some_samples_have_teacher_forced_lips_and_some_of_them_mismatched_audio():
    batch = make_batch(size=40, frames=1)
    finished = augment(batch=batch, teacher_forced_lips=0.5, mismatched_audio=0.5)
    forced = finished["teacher_forced_lips"]
    known = forced.isfinite().flatten(1)
    assert (known.all(1) | ~known.any(1)).all()
    known = known[:, 0]
    assert 10 < known.sum() < 30
    assert torch.equal(forced[known], batch["lips"][known])
    own, other = (
        (finished["decoder_mel"] == finished[name]).flatten(1).all(1)
        for name in ("mel", "mel_negative")
    )
    assert (own ^ other).all()
    assert own[~known].all()
    assert 3 < other.sum() < 20
    assert "decoder_mel" not in augment(teacher_forced_lips=0.5)
    assert "teacher_forced_lips" not in augment()


def test_still_sample_has_the_masked_face_of_the_reference():
    batch = make_batch()
    batch["reference_face"] = batch["reference_face"].flip(-1)
    plain, still = augment(batch=batch), augment(batch=batch, still=1.0, reference_pose=0.1)
    for name in ("reference_face", "mouths", "mean_mouth"):
        assert torch.equal(still[name], plain[name])
    around = masked_face(still["reference_face"][:, None], SPEC).expand_as(still["masked_face"])
    assert (around - still["masked_face"]).abs().mean() < 0.01
    assert not torch.allclose(plain["masked_face"][:, 0], still["masked_face"][:, 0], atol=0.1)


def test_min_strength_below_one_leaves_samples_nearly_unchanged():
    batch = make_batch(size=24, frames=1)
    plain = finish_batch(batch, SPEC)["mouths"]
    options = {"rotation": 10.0, "contrast": 0.25, "brightness": 0.12}
    warped = (augment(batch=batch, min_strength=least, **options) for least in (0.0, 1.0))
    weak, strong = ((b["mouths"] - plain).abs().mean((1, 2, 3, 4)) for b in warped)
    assert weak.mean() < 0.7 * strong.mean()
    assert weak.min() < 0.3 * strong.min() + 0.01


def test_audio_changes_equally_and_only_noise_raises_silence():
    batch = make_batch()
    plain = finish_batch(batch, SPEC)["mel"]
    silent = plain == MEL_SILENCE
    loud = augment(batch=batch, gain_db=8.0)["mel"]
    assert (loud - plain)[~silent].abs().max() <= 8.0 * 0.08 + 1e-5
    assert torch.equal(loud[silent], plain[silent])
    tilted = augment(batch=batch, tilt_db=8.0)["mel"] - plain
    assert (tilted[:, -1].amin((1, 2)) * tilted[:, -1].amax((1, 2)) < 0).any()
    noisy = augment(batch=batch, mel_noise=1.0)["mel"]
    assert (noisy >= plain - 1e-3).all()
    assert (noisy[silent] > MEL_SILENCE).all()
    batch["mel_negative"] = batch["mel"]
    changed = augment(batch=batch, gain_db=8.0, tilt_db=8.0, vocal_tract=0.18)
    torch.testing.assert_close(changed["mel"], changed["mel_negative"])


@pytest.mark.parametrize("factor", [0.85, 1.18])
def test_vocal_tract_factor_scales_the_frequency_of_a_tone(factor):
    time_s = torch.arange(16_000) / 16_000
    mel = AudioFeatures(SPEC)
    tone, moved = (mel(0.3 * torch.sin(2 * torch.pi * f * time_s)) for f in (1500, 1500 * factor))
    warped = warp_vocal_tract(tone[None], torch.tensor([factor]), SPEC)[0]
    assert abs(int(warped[:, 40].argmax()) - int(moved[:, 40].argmax())) <= 1
    assert int(warped[:, 40].argmax()) != int(tone[:, 40].argmax())


def test_unknown_and_negative_options_are_refused():
    with pytest.raises(UsageError, match="has no rotate; it has min_strength"):
        AugmentationOptions.from_dict({"rotate": 3})
    with pytest.raises(UsageError, match="hue must not be negative"):
        AugmentationOptions(hue=-1)
