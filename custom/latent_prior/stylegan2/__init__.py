"""StyleGAN2 in plain torch: the generator, its file formats, and the choice of trainable layers."""
