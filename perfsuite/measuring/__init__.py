"""Timing, memory, convergence and profiles of a step, and the fixture that offers them."""
