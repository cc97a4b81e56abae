"""recap: fine-tune a language model to summarize conversations, prove that it helps, summarize every night."""
