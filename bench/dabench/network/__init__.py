"""A network made ready to run: built, fused, compiled, exported; its passes."""
