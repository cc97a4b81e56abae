"""The prompt: the only place that turns text into token ids and a loss mask."""
