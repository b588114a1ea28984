"""Choice of faces by index, by pixel, or by a photo of the person."""
