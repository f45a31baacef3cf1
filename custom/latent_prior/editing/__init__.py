"""Editing pictures: the layer generator, blended latent diffusion, and background reconstruction."""
