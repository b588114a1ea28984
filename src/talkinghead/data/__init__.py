"""From raw video to batches: preparing, clip files, sampling, augmentation, the data module."""
