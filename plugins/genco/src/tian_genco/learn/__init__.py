"""Generators, losses and measures: what is trained, on what, and how its samples are judged."""
