"""@@summary@@."""
