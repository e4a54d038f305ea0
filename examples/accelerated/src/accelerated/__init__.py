"""A small network, its data, and a loop with an Accelerator."""
