"""Training of the pocket prior from scratch: pictures, autoencoder, two CLIPs, UNet, shipped folder."""
