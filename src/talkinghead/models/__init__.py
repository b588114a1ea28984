"""Networks in plain PyTorch, and the checkpoint format."""
