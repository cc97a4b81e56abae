"""Storage: one interface over paths, s3:// and hf://, and folders verified by their manifest."""
