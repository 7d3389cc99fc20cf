"""Generators of terrain maps whose samples are steered towards cheap shortest paths."""
