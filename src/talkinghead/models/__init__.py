"""Networks in plain torch, and the checkpoint that they are rebuilt from."""
