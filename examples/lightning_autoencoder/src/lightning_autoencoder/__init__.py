"""An autoencoder, its data, and the LightningModule that trains it."""
