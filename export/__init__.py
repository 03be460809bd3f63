"""ONNX graphs of the zoo's networks: fused, verified and run without torch (installed as nasnet_zoo.export)."""
