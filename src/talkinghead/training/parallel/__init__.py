"""Training on several devices and machines, and speed options."""
