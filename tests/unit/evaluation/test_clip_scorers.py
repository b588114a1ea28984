"""Scorers with networks: loading of weight files, and values of known inputs."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from scipy.linalg import sqrtm
from torchvision.models import inception_v3

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.evaluation.scorers import syncnet
from talkinghead.evaluation.scorers.clip_scorers import ScorerOptions, Scorers, SyncNetworkOptions
from talkinghead.evaluation.scorers.image_scorers import (
    FaceRecogniser,
    Inception,
    Lpips,
    frechet_distance,
)
from talkinghead.evaluation.scorers.sound_times import SoundTimes, read_sound_times
from talkinghead.types import AVSpec, UInt8Array

# fmt: off
GOLDEN = [
    [16.82728, 29.17284, 18.03565, 6.86691, -5.02342, -15.4611, -21.9985, -24.75796, -22.91392,
     -18.18508, -11.01688, -4.54614, 0.9155],
    [23.88745, 0.05345, -37.48938, 15.22077, 27.46041, -23.3775, -19.49777, 27.85768, 10.43453,
     -26.96984, -1.47384, 22.25998, -4.60685],
]
# fmt: on


def noise(seed: int, count: int = 4) -> UInt8Array:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 256, 256, 3)).astype(np.uint8)


def test_motion_scores_show_an_open_mouth_in_pauses() -> None:
    scorers = Scorers(AVSpec(), detector=None)  # type: ignore[arg-type]
    speech = np.arange(40) < 25
    real = np.where(speech, 0.1 + 0.1 * np.sin(np.arange(40)), 0.01).astype(np.float32)
    open_ = np.where(speech, real, 0.08).astype(np.float32)
    open_[3] = np.nan
    values = scorers.motion(open_, real, speech)
    expected = {"opening_pauses": 0.08, "opening_pauses_real": 0.01, "r_own_speech": 1}
    expected["found"] = 39 / 40
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert values["r_own"] < 0.95
    assert "opening_pauses" not in scorers.motion(open_, real, None)


def test_lpips_grows_with_visible_differences() -> None:
    pytest.importorskip("stlpips_pytorch")
    lpips = Lpips()
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), 64, mode="bilinear")
    blurred = torch.nn.functional.avg_pool2d(image, 9, 1, 4)
    assert lpips(image, image) == pytest.approx(0, abs=1e-6)
    slightly = lpips(image + 0.02, image)
    assert 0 < slightly < lpips(blurred, image) < lpips(torch.rand(1, 3, 64, 64), image) < 1.5


def test_identity_is_the_cosine_of_embeddings(tmp_path: Path) -> None:
    image, pooled = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, side, side))
        for name, side in (("image", 112), ("pooled", 4))
    )
    options = {"kernel_shape": (28, 28), "strides": (28, 28)}
    pool = helper.make_node("AveragePool", ["image"], ["pooled"], **options)
    model = helper.make_model(helper.make_graph([pool], "g", [image], [pooled]))
    (tmp_path / "pool.onnx").write_bytes(model.SerializeToString())
    similarity, faces = FaceRecogniser(tmp_path / "pool.onnx", 127.5, 127.5), noise(0)
    assert similarity(faces, faces) == pytest.approx(1)
    assert similarity(255 - faces, faces) == pytest.approx(-1, abs=0.01)
    assert abs(similarity(noise(1), faces)) < 0.5


def test_frechet_distance_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 3))
    b = rng.normal(size=(4000, 3)) * (1, 2, 3) + (2, 0, 0)
    # The expected distance is the sum of |mean|^2 and, because the covariances are diagonal, the
    # squared differences of the standard deviations.
    assert frechet_distance(a, b) == pytest.approx(4 + 0 + 1 + 4, rel=0.05)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert math.isnan(frechet_distance(a[:1], b))
    # There are fewer images than features.
    a, b = rng.normal(size=(5, 8)), rng.normal(size=(6, 8)) + 0.5
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = np.trace(sqrtm(covariances[0] @ covariances[1] + 1e-12 * np.eye(8))).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + sum(map(np.trace, covariances)) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-3)


def test_inception_loads_torchvision_weights(tmp_path: Path) -> None:
    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), tmp_path / "i.pth")
    features = Inception(tmp_path / "i.pth").features(noise(0, 2))
    assert features.shape == (2, 2048)
    assert not np.array_equal(features[0], features[1])


def test_invalid_weight_files_are_rejected(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for name in ("other.pth", "text.pth", "list.pth", "missing.pth"):
        with pytest.raises(CheckpointError, match=r"syncnet_v2\.model"):
            syncnet.load_syncnet(tmp_path / name)
        with pytest.raises(CheckpointError, match="inception_v3_google"):
            Inception(tmp_path / name)
    for name, error in (("missing.pth", "does not exist"), ("text.pth", "cannot be read as ONNX")):
        with pytest.raises(CheckpointError, match=error):
            FaceRecogniser(tmp_path / name, 0, 1)


def test_mfcc_matches_python_speech_features() -> None:
    """Expected values are from `python_speech_features` 0.6 on the same 16-bit samples."""
    time_s = np.arange(8000) / 16_000
    chirp = np.sin(2 * np.pi * (200 + 3000 * time_s) * time_s) * np.linspace(0.1, 0.9, 8000)
    coefficients = syncnet.mfcc(chirp.astype(np.float32))
    assert coefficients.shape == (13, 49)
    np.testing.assert_allclose(coefficients[:, [0, 30]].T, GOLDEN, rtol=1e-4, atol=1e-3)


def test_syncnet_loads_published_weight_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = syncnet.SyncNet().state_dict()
    # Check tensor names and shapes of the published file.
    assert state["netcnnlip.0.weight"].shape == (96, 3, 5, 7, 7)
    assert state["netcnnaud.18.weight"].shape == (512, 256, 5, 4)
    assert {"netcnnlip.18.weight", "netfcaud.3.weight"} <= state.keys()
    torch.save(state, tmp_path / "syncnet_v2.model")
    loaded = syncnet.load_syncnet(tmp_path / "syncnet_v2.model")
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    # Every window has 5 frames and 20 audio frames of 10 ms.
    for num_frames, num_samples, num_windows in ((8, 16_000, 4), (8, 4160, 2), (3, 16_000, 0)):
        audio, video = syncnet.embed_clip(loaded, noise(0, num_frames), samples[:num_samples])
        assert audio.shape == video.shape == (num_windows, 1024)


def test_notes_list_every_skipped_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talkinghead.losses.perceptual_loss._OFFLINE_PACKAGE", "no_such_package")
    scorers = Scorers.build(ScorerOptions(sync=SyncNetworkOptions(checkpoint=None)))
    assert scorers.lpips is None
    for word in ("expert", "LPIPS", "SyncNet", "Identity", "FID"):
        assert any(word in note for note in scorers.notes), word


def test_expert_of_another_spec_is_rejected() -> None:
    with pytest.raises(UsageError, match="hop_length: 200 != 160"):
        Scorers.build(ScorerOptions(), AVSpec(hop_length=160))


def test_sound_times_are_read_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "sounds.csv"
    path.write_text("clip,time_s\ns1/a,0.5\ns1/a,1.25\ns4/b,0.1\n")
    expected = {"s1/a": SoundTimes([0.5, 1.25]), "s4/b": SoundTimes([0.1])}
    assert read_sound_times(path) == expected
    path.write_text("clip,time_s,sound\ns1/a,0.5,u\ns1/a,1.25,b\n")
    assert read_sound_times(path) == {"s1/a": SoundTimes([1.25], [0.5])}
    for text, message in (
        ("name,time\na,b\n", "columns clip and time_s"),
        ("clip,time_s,sound\ns1/a,0.5,x\n", "line 2: .* one of p, b, m"),
        (None, "columns clip and time_s"),
    ):
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_sound_times(path)


def test_rates_of_sounds_use_opening_and_width() -> None:
    detector = SimpleNamespace(topology="ibug68")
    sounds = {"a": SoundTimes([0.42], [0.82])}
    scorers = Scorers(AVSpec(), detector, sounds=sounds)  # type: ignore[arg-type]
    points = np.zeros((50, 68, 2), np.float32)
    points[:, 45, 0], points[:, 54, 0] = 100, 50
    narrow, closed = points.copy(), np.full(50, 0.3, np.float32)
    narrow[20, 54, 0], closed[10] = 40, 0
    narrow[:3, 54, 0], closed[:3] = 40, 0
    still = np.full(50, 0.3, np.float32)
    still[30:] = 0.0
    values = scorers.sound_rates("a", narrow, points, (still, closed))
    rates = {"closure_rate": 0, "closure_rate_real": 1, "rounding_rate": 1}
    assert {name: values[name] for name in rates} == rates
    assert math.isnan(values["rounding_rate_real"])  # The real width is constant.
    assert scorers.sound_rates("b", narrow, points, (still, closed)) == {}
