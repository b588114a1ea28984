"""Pruning and result tables of Hydra sweeps."""
