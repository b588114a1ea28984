"""Turn raw videos into a prepared corpus."""
