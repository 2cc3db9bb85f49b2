import os

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")


@pytest.fixture(autouse=True)
def one_torch_thread(request):
    """Two busy threads made tiny steps 40 times slower; a test that needs no torch does not import it."""
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
