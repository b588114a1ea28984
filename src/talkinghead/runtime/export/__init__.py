"""Export a generator to ONNX, TorchScript and ExecuTorch."""
