"""Devices behind one Protocol: cpu, cuda, mps, xla; memory, energy, the machine's description."""
