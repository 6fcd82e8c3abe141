"""TensorFlow on TensorRT: empty until the TensorFlow integration is built."""
