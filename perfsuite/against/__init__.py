"""A pytest session that compares two trees: it coordinates a server process of each side."""
