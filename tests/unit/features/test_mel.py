"""Tests of mel filters and of the cosine transform."""

import pytest
import torch

from talkinghead.features.mel import cosine_transform, mel_filters


def test_matrices_equal_those_of_torchaudio():
    functional = pytest.importorskip("torchaudio.functional")
    for arguments in ((401, 55.0, 7600.0, 80, 16_000), (257, 0.0, 11_025.0, 40, 22_050)):
        expected = functional.melscale_fbanks(*arguments, norm="slaney", mel_scale="slaney")
        torch.testing.assert_close(mel_filters(*arguments), expected, rtol=1e-5, atol=1e-9)
    expected = functional.create_dct(13, 80, norm="ortho")
    torch.testing.assert_close(cosine_transform(13, 80), expected, rtol=1e-5, atol=1e-7)


def test_filters_have_unit_area_and_the_transform_is_orthonormal():
    filters = mel_filters(40_001, 55.0, 7600.0, 80, 16_000)
    area = filters.sum(0) * (8000 / 40_000)
    torch.testing.assert_close(area, torch.ones(80), rtol=1e-3, atol=1e-3)
    matrix = cosine_transform(80, 80)
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(80), rtol=1e-5, atol=1e-5)
