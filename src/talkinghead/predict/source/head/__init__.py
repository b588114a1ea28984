"""Three-dimensional motion of the heads in a photo."""
