"""Run lists of predictions in one or several processes."""
