"""Finding and following faces: detectors behind one protocol, and the tracker that uses them."""
