"""Scorers that need a network: sync, LPIPS, identity, FID."""
