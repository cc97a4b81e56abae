"""What made the demo's base model and conversations. Not a part of the package `recap`."""
