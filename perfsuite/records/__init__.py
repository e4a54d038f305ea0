"""What is kept: runs, baselines and their history as files, read back with every field checked."""
