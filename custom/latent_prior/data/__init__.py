"""The registered data modules of systems that are not lifted to 3D; cameras are the host's."""
