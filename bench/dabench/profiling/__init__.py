"""Where time goes: layers, kernels, the roofline, traces."""
