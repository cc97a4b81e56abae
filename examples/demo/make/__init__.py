"""The scripts that made the demo's base model and conversations; no part of the package."""
