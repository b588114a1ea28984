"""What is computed from sound and pictures: audio features, faces and their geometry."""
