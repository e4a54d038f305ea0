"""A pytest session that searches a row of versions for what changed a figure."""
