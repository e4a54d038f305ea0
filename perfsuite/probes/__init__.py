"""Is mixed precision really on, and applied rightly? A probe looks at the structure of a step."""
