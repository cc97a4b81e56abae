"""Storage: one small interface over local paths, s3:// and hf://, and folders verified by their manifest."""
