"""Networks in plain torch, and the checkpoint format."""
