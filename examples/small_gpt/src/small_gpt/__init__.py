"""A small GPT: the network, the text and the training."""
