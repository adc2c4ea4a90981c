"""What each method adds to a training step; the methods by name are in `dabench.plan.methods`."""
