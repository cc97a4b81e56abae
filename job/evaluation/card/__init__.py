"""The model card: README.md of an adapter or of merged weights, and how to use them."""
