"""Words, pieces and patterns found in plain text, by counting alone."""
