"""A run: its checkpoints, and what it keeps quiet."""
