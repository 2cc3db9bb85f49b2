"""Train or test, by a hash of the example's own name: adding examples moves no other one across."""

import hashlib


def is_test(name: str, test_share: float) -> bool:
    """Whether the example belongs to the share kept for testing."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < test_share * 2**64
