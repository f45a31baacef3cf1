"""The registered data modules of the 2D systems; camera data modules belong to the host."""
