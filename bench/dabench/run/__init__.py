"""A plan carried out: order of launches, worker processes, resume."""
