"""A tiny BERT, its sentences, and the Trainer."""
