"""The intermediate representation: typed, immutable graphs of TensorRT-shaped ops."""
