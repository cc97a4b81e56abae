"""Configuration: the keys of each command, and how a config is loaded and checked."""
