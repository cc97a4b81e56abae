"""One module per format: how a record is written down."""
