"""Words, templates and trees found in text without labels."""
