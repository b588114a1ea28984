"""Training: LightningModules, callbacks, training runs and sweeps."""
