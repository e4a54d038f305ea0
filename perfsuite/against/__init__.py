"""A pytest session that compares two trees: a controller and a server process for each side."""
