"""Fine-tune a language model to summarize conversations, and summarize every night with it."""
