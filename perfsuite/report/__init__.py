"""The report of a run: pictures and tables, drawn from run files alone."""
