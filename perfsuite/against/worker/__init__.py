"""One side of a comparison, in processes of its own."""
