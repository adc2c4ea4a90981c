"""Predictions against labels: the class of each pixel, counts of them, scores."""
