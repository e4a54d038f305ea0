"""What is trained: the network, its data, and its step, written once for every precision."""
