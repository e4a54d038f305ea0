"""A generative adversarial network: both networks, the points and the training."""
