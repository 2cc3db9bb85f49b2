"""Which models there are, which one is in production, where each came from: Git tags as GTO writes them, and dvc.lock."""
