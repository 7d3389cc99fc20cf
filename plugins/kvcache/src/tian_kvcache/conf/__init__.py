"""Run configurations of the kvcache plugin."""
