"""LightningModules, callbacks, sweeps and the training run."""
