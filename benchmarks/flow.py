"""The flow, run once in the current directory; tells the seconds that it took after its imports.

python -m benchmarks.flow [--by-prefect]

Without --by-prefect it is `python -m flows.retrain`, which looks for work before it asks Prefect; with it, Prefect is
asked first, as a deployment does.
"""

import argparse
import json
import sys
import time


def main() -> int:
    """Run it; the status is the flow's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by-prefect", action="store_true")
    given = parser.parse_args()
    from flows import direct
    from flows.retrain import retrain

    started = time.perf_counter()
    if given.by_prefect:
        retrain()
        status = 0
    else:
        status = direct.main([])
    print(json.dumps({"seconds": time.perf_counter() - started}))
    return status


if __name__ == "__main__":
    sys.exit(main())
