"""A pytest session that gates one tree: collection, verdicts on items, saving, the summary."""
