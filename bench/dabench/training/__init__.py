"""Training: losses, one step, the loop, checkpoints, evaluation."""
