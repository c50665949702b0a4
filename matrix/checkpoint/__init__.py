"""Reading and inspecting quantized checkpoints with no quantizer installed."""
