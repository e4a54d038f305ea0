"""A small image classifier: the network, the data and the training."""
