"""Time: the clock, the engine that takes samples, their statistics. Knows no torch."""
