"""Run directories: where a run writes, how it is resumed, and the report it leaves."""
