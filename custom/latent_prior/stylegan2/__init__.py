"""StyleGAN2 in plain torch: the generator, its file formats, and which of its layers train."""
