"""Wrappers around diffusers and transformers: checkpoint, denoiser, autoencoder, text encoder, and `LatentPrior`."""
