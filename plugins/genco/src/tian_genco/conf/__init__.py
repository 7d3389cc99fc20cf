"""Run configurations of the genco plugin."""
