"""Accelerators: whatever differs from one to the next is in here, and nowhere else."""
