"""Output of predictions: muxing, labels and provenance."""
