"""Tests of batch augmentation."""

import pytest
import torch
from skimage import data

from talkinghead.data.augmentation.batch_augmentation import BatchAugmentation, warp_vocal_tract
from talkinghead.data.augmentation.finished_batch import finish_batch, finish_mouths
from talkinghead.data.data_options import AugmentationOptions
from talkinghead.errors import UsageError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import MIRRORED_LIPS, NOSE_LINE, masked_face, mouth_crop
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.types import AVSpec

SPEC = AVSpec()
# Twenty points in the mouth box.
LIPS = torch.stack([128 + 30 * torch.linspace(-1, 1, 20), torch.linspace(150, 190, 20)], -1)
NOTHING = dict.fromkeys(AugmentationOptions.__dataclass_fields__, 0.0)


def make_batch(size=3, frames=2):
    portrait = torch.from_numpy(data.astronaut()[:256, 96:352]).permute(2, 0, 1)
    starts = torch.arange(0, 64, 3)[:21].expand(size, -1)
    mel = torch.rand(size, 80, 80) * 4 - 2
    mel[:, :, :10] = MEL_SILENCE
    return {
        "reference_face": portrait.expand(size, -1, -1, -1),
        "mean_face": portrait.expand(size, -1, -1, -1),
        "faces": portrait.expand(size, frames, -1, -1, -1),
        "mel": mel,
        "mel_negative": mel.flip(-1),
        "window_starts": starts,
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


IMAGES = ("reference_face", "masked_face", "mouths", "mean_mouth")
FULL = {name: field.default for name, field in AugmentationOptions.__dataclass_fields__.items()}


def test_full_augmentation_keeps_shapes_and_ranges():
    plain, full = finish_batch(make_batch(), SPEC), augment(**FULL)
    for name in (*IMAGES, "mel", "mel_negative"):
        assert full[name].shape == plain[name].shape
        assert full[name].dtype == torch.float32
        assert not torch.allclose(full[name], plain[name], atol=0.01)
    for name in IMAGES:
        assert full[name].min() >= 0
        assert full[name].max() <= 1
    assert full["mel"].min() >= MEL_SILENCE
    assert full["mel"].max() <= 4
    assert full["mel"].shape == (3, 21, 80, 16)


def test_zero_strength_changes_nothing():
    batch = make_batch()
    plain, same = finish_batch(batch, SPEC), augment(batch=batch)
    for name in (*IMAGES, "mel"):
        torch.testing.assert_close(same[name], plain[name], atol=2e-3, rtol=0)


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


def test_images_of_a_sample_change_alike_and_samples_differ():
    own = {"reference_blur": 0, "reference_noise": 0, "reference_jpeg": 0}
    batch = augment(**(FULL | own))
    reference = batch["reference_face"]
    torch.testing.assert_close(mouth_crop(reference[:, None], SPEC)[:, 0], batch["mouths"][:, 0])
    torch.testing.assert_close(batch["mean_mouth"], batch["mouths"][:, 0])
    # The masked face is sampled at half the size, not averaged.
    around = masked_face(reference, SPEC)
    assert (around - batch["masked_face"][:, 0]).abs().mean() < 0.01
    torch.testing.assert_close(batch["mouths"][:, 0], batch["mouths"][:, 1])
    assert not torch.allclose(batch["mouths"][0], batch["mouths"][1], atol=0.05)


@pytest.mark.parametrize("name", ["reference_blur", "reference_noise", "reference_jpeg"])
def test_degradation_affects_the_reference_only(name):
    batch = make_batch()
    plain, damaged = augment(batch=batch), augment(batch=batch, **{name: 1.0})
    assert torch.equal(plain["mouths"], damaged["mouths"])
    assert torch.equal(plain["masked_face"], damaged["masked_face"])
    assert torch.equal(plain["mean_mouth"], damaged["mean_mouth"])
    difference = (plain["reference_face"] - damaged["reference_face"]).abs().mean(dim=(1, 2, 3))
    assert (difference > 1e-3).all()


def test_rotation_and_flip():
    plain = augment()["mouths"]
    mirrored = augment(flip=1.0)["mouths"]
    torch.testing.assert_close(mirrored, plain.flip(-1), atol=2e-3, rtol=0)
    turned = augment(rotation=10.0)["mouths"]
    assert (turned - plain).abs().mean() > 0.01
    # The middle of the mouth box is the centre of rotation.
    centre = slice(47, 49), slice(47, 49)
    assert (turned - plain)[..., centre[0], centre[1]].abs().max() < 0.1


def test_flip_mirrors_head_turn_and_lip_points():
    batch = make_batch() | {"head_turn": torch.tensor([[10.0, 20.0, 30.0]]).expand(3, 2, 3)}
    turned = {"rotation": 10.0, "scale": 0.15, "elastic": 0.015}
    assert torch.equal(augment(batch=batch, **turned)["head_turn"], batch["head_turn"])
    mirrored = augment(batch=batch, flip=1.0, **turned)["head_turn"]
    assert torch.equal(mirrored, torch.tensor([-10.0, 20.0, -30.0]).expand(3, 2, 3))
    plain, mirrored = augment()["lip_points"], augment(flip=1.0)["lip_points"]
    assert torch.allclose(plain, LIPS.expand_as(plain), atol=0.1)
    assert torch.allclose(mirrored[..., MIRRORED_LIPS, 0], 255 - plain[..., 0], atol=0.1)
    assert torch.allclose(mirrored[..., MIRRORED_LIPS, 1], plain[..., 1], atol=0.1)


def test_pose_change_affects_the_reference_only_about_the_nose():
    plain, posed = augment(), augment(reference_pose=0.1)
    for name in ("masked_face", "mouths", "mean_mouth"):
        assert torch.equal(posed[name], plain[name])
    moved = (posed["reference_face"] - plain["reference_face"]).abs().mean((1, 3))
    nose = round(NOSE_LINE * SPEC.face_size)
    assert (moved[:, nose - 1 : nose + 1].mean(1) < 0.2 * moved.mean(1)).all()
    assert not torch.allclose(moved[0], moved[1])


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


def test_smile_affects_the_mouth_of_the_reference_only():
    plain, smiling = augment(), augment(reference_smile=1.0)
    for name in ("masked_face", "mouths", "mean_mouth"):
        assert torch.equal(smiling[name], plain[name])
    moved = (smiling["reference_face"] - plain["reference_face"]).abs().mean(1)
    x0, y0, x1, y1 = (int(v) for v in SPEC.mouth_box)
    assert (moved[:, y0:y1, x0:x1].mean((1, 2)) > 1e-3).all()
    moved[:, y0:y1, x0:x1] = 0
    assert moved.max() < 0.02


@pytest.mark.parametrize("options", [{}, FULL | {"turn": 0.5, "aspect": 0.25, "flip": 0.0}])
def test_lip_points_follow_the_warp(options):
    batch = make_batch()
    x, y = LIPS[7].round().int().tolist()
    for name in ("reference_face", "faces"):
        batch[name] = torch.zeros_like(batch[name])
        batch[name][..., y - 1 : y + 2, x - 1 : x + 2] = 255
    damage = {name: 0.0 for name in NOTHING if name.startswith("reference_")}
    colours = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    warped = augment(batch=batch, **options | damage | colours | {"reference_pose": 0.1})
    face = warped["reference_face"].mean(1)
    places = torch.stack(torch.meshgrid(*[torch.arange(256.0)] * 2, indexing="xy"), -1)
    seen = (face[..., None] * places).sum((1, 2)) / face.sum((1, 2))[:, None]
    assert (warped["reference_lips"][:, 7] - seen).abs().max() < 1
    corner, scale = torch.tensor([SPEC.mouth_x, SPEC.mouth_y]), SPEC.mouth_side / SPEC.mouth_size
    mouth = warped["mouths"][:, 0].mean(1)
    seen = (mouth[..., None] * places[:96, :96]).sum((1, 2)) / mouth.sum((1, 2))[:, None]
    seen = (seen + 0.5) * scale - 0.5 + corner
    assert (warped["lip_points"][:, 0, 7] - seen).abs().max() < 1.5


def test_unknown_lip_points_stay_nan():
    batch = make_batch()
    batch["lip_points"] = LIPS.expand(3, 2, -1, -1).clone()
    batch["lip_points"][1, 0] = torch.nan
    unknown = augment(batch=batch, rotation=10.0)["lip_points"].isnan().flatten(2).all(-1)
    assert unknown.tolist() == [[False, False], [True, False], [False, False]]


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
    assert "decoder_mel" not in augment(batch=batch, teacher_forced_lips=0.5)
    assert "teacher_forced_lips" not in augment(batch=batch)


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
    change = {
        least: (augment(batch=batch, min_strength=least, **options)["mouths"] - plain)
        .abs()
        .mean(dim=(1, 2, 3, 4))
        for least in (0.0, 1.0)
    }
    assert change[0.0].mean() < 0.7 * change[1.0].mean()
    assert change[0.0].min() < 0.3 * change[1.0].min() + 0.01


def test_saturation_and_hue_keep_grey():
    grey = torch.full((3, 2, 3, 256, 256), 90, dtype=torch.uint8)
    batch = augment(batch=make_batch() | {"faces": grey}, saturation=0.4, hue=12.0)
    mouths = batch["mouths"]
    torch.testing.assert_close(mouths, torch.full_like(mouths, 90 / 255))


def test_audio_changes_alike_and_silence_stays():
    batch = make_batch()
    plain = finish_batch(batch, SPEC)["mel"]
    loud = augment(batch=batch, gain_db=8.0)["mel"]
    shift = (loud - plain)[plain > MEL_SILENCE].view(-1)
    assert shift.abs().max() <= 8.0 * 0.08 + 1e-5
    assert torch.equal(loud[plain == MEL_SILENCE], plain[plain == MEL_SILENCE])
    tilted = augment(batch=batch, tilt_db=8.0)["mel"] - plain
    assert (tilted[:, -1].amin((1, 2)) * tilted[:, -1].amax((1, 2)) < 0).any()
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
    same = warp_vocal_tract(tone[None], torch.ones(1), SPEC)[0]
    torch.testing.assert_close(same, tone, atol=1e-3, rtol=0)


def test_noise_raises_the_floor_only():
    batch = make_batch()
    plain, noisy = augment(batch=batch)["mel"], augment(batch=batch, mel_noise=1.0)["mel"]
    assert (noisy >= plain - 1e-3).all()
    assert (noisy[plain == MEL_SILENCE] > MEL_SILENCE).all()


def test_mouth_batches_equal_the_mouths_of_full_batches():
    own = {"reference_blur": 0, "reference_noise": 0, "reference_jpeg": 0}
    batch = make_batch()
    for augmentation in (None, BatchAugmentation(SPEC, AugmentationOptions(**(FULL | own)))):
        whole = finish_batch(batch, SPEC, augmentation)
        mouths = finish_mouths(batch, SPEC, augmentation)
        for name in ("mouths", "mean_mouth", "mel"):
            assert torch.equal(mouths[name], whole[name])
    whole = finish_batch(batch, SPEC)
    torch.testing.assert_close(whole["mouths"], mouth_crop(whole["faces"], SPEC))


def test_unknown_and_negative_options_are_refused():
    with pytest.raises(UsageError, match="has no rotate; it has min_strength"):
        AugmentationOptions.from_dict({"rotate": 3})
    with pytest.raises(UsageError, match="hue must not be negative"):
        AugmentationOptions(hue=-1)
