"""Scorers with networks: loading of weight files, and values of known inputs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.evaluation.scorers import syncnet
from talkinghead.evaluation.scorers.clip_scorers import ScorerOptions, Scorers, SyncNetworkOptions
from talkinghead.evaluation.scorers.fid import Inception, frechet_distance
from talkinghead.evaluation.scorers.frame_selection import evenly_spaced
from talkinghead.evaluation.scorers.identity import FaceRecogniser
from talkinghead.types import AVSpec, UInt8Array

# fmt: off
GOLDEN_FIRST = [
    16.82728, 29.17284, 18.03565, 6.86691, -5.02342, -15.4611, -21.9985, -24.75796, -22.91392,
    -18.18508, -11.01688, -4.54614, 0.9155,
]
GOLDEN_LATER = [
    23.88745, 0.05345, -37.48938, 15.22077, 27.46041, -23.3775, -19.49777, 27.85768, 10.43453,
    -26.96984, -1.47384, 22.25998, -4.60685,
]
# fmt: on


def noise(seed: int, count: int = 4) -> UInt8Array:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 256, 256, 3)).astype(np.uint8)


def test_evenly_spaced_includes_the_ends() -> None:
    assert list(evenly_spaced(101, 3)) == [0, 50, 100]
    assert list(evenly_spaced(2, 5)) == [0, 1]
    assert list(evenly_spaced(1, 5)) == [0]


def test_motion_scores_show_an_open_mouth_in_pauses() -> None:
    scorers = Scorers(AVSpec(), detector=None)  # type: ignore[arg-type]
    speech = np.arange(40) < 25
    real = np.where(speech, 0.1 + 0.1 * np.sin(np.arange(40)), 0.01).astype(np.float32)
    open_ = np.where(speech, real, 0.08).astype(np.float32)
    open_[3] = np.nan
    values = scorers.motion(open_, real, speech)
    assert values["opening_pauses"] == pytest.approx(0.08)
    assert values["opening_pauses_real"] == pytest.approx(0.01)
    assert values["r_own_speech"] == pytest.approx(1)
    assert values["r_own"] < 0.95
    assert values["found"] == pytest.approx(39 / 40)
    assert "opening_pauses" not in scorers.motion(open_, real, None)


def test_lpips_grows_with_visible_differences() -> None:
    pytest.importorskip("stlpips_pytorch")
    from talkinghead.evaluation.scorers.lpips import Lpips

    lpips = Lpips()
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), 64, mode="bilinear")
    blurred = torch.nn.functional.avg_pool2d(image, 9, 1, 4)
    assert lpips(image, image) == pytest.approx(0, abs=1e-6)
    slightly = lpips(image + 0.02, image)
    assert 0 < slightly < lpips(blurred, image) < lpips(torch.rand(1, 3, 64, 64), image) < 1.5


def onnx_file(path: Path) -> Path:
    """Write an ONNX network that pools an image of 112 x 112 to 4 x 4."""

    def field(number: int, value: bytes | int) -> bytes:
        if isinstance(value, int):
            return bytes([number << 3, value])
        size = len(value)
        length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        return bytes([number << 3 | 2]) + length + value

    def tensor(name: str, shape: tuple[int, ...]) -> bytes:
        sides = b"".join(field(1, field(1, side)) for side in shape)
        kind = field(1, field(1, 1) + field(2, sides))
        return field(1, name.encode()) + field(2, kind)

    def ints(name: str, values: tuple[int, ...]) -> bytes:
        inner = field(1, name.encode()) + b"".join(field(8, value) for value in values)
        return field(5, inner + bytes([0xA0, 0x01, 7]))  # Field 20, the type: integers.

    pool = field(1, b"image") + field(2, b"pooled") + field(4, b"AveragePool")
    pool += ints("kernel_shape", (28, 28)) + ints("strides", (28, 28))
    graph = field(1, pool) + field(2, b"g")
    graph += field(11, tensor("image", (1, 3, 112, 112))) + field(
        12, tensor("pooled", (1, 3, 4, 4))
    )
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 13)))
    return path


def test_identity_is_the_cosine_of_embeddings(tmp_path: Path) -> None:
    recogniser = FaceRecogniser(onnx_file(tmp_path / "pool.onnx"), 127.5, 127.5)
    faces = noise(0)
    assert recogniser.similarity(faces, faces) == pytest.approx(1)
    negative = 255 - faces
    assert recogniser.similarity(negative, faces) == pytest.approx(-1, abs=0.01)
    assert abs(recogniser.similarity(noise(1), faces)) < 0.5


def test_invalid_recogniser_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        FaceRecogniser(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a protobuf")
    with pytest.raises(CheckpointError, match="cannot be read as ONNX"):
        FaceRecogniser(tmp_path / "broken.onnx")


def test_frechet_distance_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 3))
    b = rng.normal(size=(4000, 3)) * (1, 2, 3) + (2, 0, 0)
    # |mean|^2 and, for diagonal covariances, the squared differences of the deviations.
    assert frechet_distance(a, b) == pytest.approx(4 + 0 + 1 + 4, rel=0.05)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert math.isnan(frechet_distance(a[:1], b))


def test_frechet_distance_with_fewer_images_than_features() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 8)), rng.normal(size=(6, 8)) + 0.5
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = np.trace(sqrtm(covariances[0] @ covariances[1] + 1e-12 * np.eye(8))).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + sum(map(np.trace, covariances)) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-3)


def test_inception_reads_the_file_of_torchvision(tmp_path: Path) -> None:
    from torchvision.models import inception_v3

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


def test_mfcc_equals_that_of_syncnets_training() -> None:
    """Compare with `python_speech_features.mfcc` 0.6 of the same 16-bit samples."""
    time_s = np.arange(8000) / 16_000
    chirp = np.sin(2 * np.pi * (200 + 3000 * time_s) * time_s) * np.linspace(0.1, 0.9, 8000)
    coefficients = syncnet.mfcc(chirp.astype(np.float32))
    assert coefficients.shape == (13, 49)
    np.testing.assert_allclose(coefficients[:, 0], GOLDEN_FIRST, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(coefficients[:, 30], GOLDEN_LATER, rtol=1e-4, atol=1e-3)


def test_syncnet_reads_a_file_of_the_published_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = syncnet.SyncNet()
    keys = network.state_dict().keys()
    # Names of layers in the published file.
    assert {"netcnnaud.18.weight", "netcnnlip.18.weight", "netfcaud.3.weight"} <= set(keys)
    assert network.state_dict()["netcnnlip.0.weight"].shape == (96, 3, 5, 7, 7)
    assert network.state_dict()["netcnnaud.18.weight"].shape == (512, 256, 5, 4)
    torch.save(network.state_dict(), tmp_path / "syncnet_v2.model")
    loaded = syncnet.load_syncnet(tmp_path / "syncnet_v2.model")
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    audio, video = syncnet.embed_clip(loaded, noise(0, 8), samples)
    assert audio.shape == video.shape == (4, 1024)
    # Shorter audio gives fewer windows, each of which needs 20 frames of 10 ms.
    assert len(syncnet.embed_clip(loaded, noise(0, 8), samples[:4160])[0]) == 2
    assert len(syncnet.embed_clip(loaded, noise(0, 3), samples)[0]) == 0


def test_notes_name_every_skipped_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talkinghead.losses.perceptual_loss._OFFLINE_PACKAGE", "no_such_package")
    scorers = Scorers.build(ScorerOptions(sync=SyncNetworkOptions(checkpoint=None)))
    assert scorers.lpips is None
    for word in ("expert", "LPIPS", "SyncNet", "Identity", "FID"):
        assert any(word in note for note in scorers.notes), word


def test_expert_of_another_spec_is_rejected() -> None:
    with pytest.raises(UsageError, match="hop_length: 200 != 160"):
        Scorers.build(ScorerOptions(), AVSpec(hop_length=160))
