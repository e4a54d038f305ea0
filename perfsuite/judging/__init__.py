"""Pure functions from numbers to verdicts: no torch, no pytest, no clock of its own."""
