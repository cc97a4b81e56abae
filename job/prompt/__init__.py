"""The prompt: the only package that turns text into token ids and a loss mask."""
