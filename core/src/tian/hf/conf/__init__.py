"""Run configurations of the built-in `lm` plugin."""
