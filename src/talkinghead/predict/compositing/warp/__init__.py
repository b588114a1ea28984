"""Warps of the lips and the chin that follow the generator's."""
