"""Scorers that need a network: sync experts, LPIPS, identity and FID."""
