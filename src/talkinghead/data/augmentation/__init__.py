"""Augment batches on their device."""
