"""Running experiments: a run, its folder, its checkpoints and callbacks, and resuming it."""
