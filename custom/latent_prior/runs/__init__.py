"""Running experiments: one run, its folder, its checkpoints and callbacks, and going on with it."""
