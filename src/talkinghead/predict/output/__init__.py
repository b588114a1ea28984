"""Write the result: muxing, labels and provenance."""
