"""Configuration: the models of each command's YAML, loading, overrides, one report of all mistakes."""
