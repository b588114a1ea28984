"""Lip-sync for real faces: train it with PyTorch Lightning and Hydra, ship it as a predictor."""

from __future__ import annotations

__version__ = "0.1.0"
