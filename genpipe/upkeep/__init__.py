"""What keeps a project in order: what is missing, who holds what, what can go, and whether hashes tell the truth."""
