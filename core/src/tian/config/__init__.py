"""Composing the configuration of a run from files, groups and overrides, with the origin of every value."""
