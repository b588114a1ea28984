"""Training corpora: preparation, clip files, sampling, augmentation and data modules."""
