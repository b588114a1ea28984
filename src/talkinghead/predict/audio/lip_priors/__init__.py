"""Lip priors: predictions of the lip motion besides the generator's own."""
