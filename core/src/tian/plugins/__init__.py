"""How plugins are found, isolated, named and constructed."""
