"""What is asked: axes, grids, presets, references to networks, cases. Knows no torch."""
