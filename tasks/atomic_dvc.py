"""DVC, with a dvc.lock that is whole at every moment: DVC writes it in place, and killed meanwhile it loses every stage.

    python atomic_dvc.py WORDS…        as `dvc WORDS…`

What is replaced is not DVC's public interface; tests/test_reproduce.py shows that it is replaced.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.pop(0)  # the directory of this file, whose modules are nobody's top level

from dvc.cli import main
from dvc.utils.serialize import _common, _yaml


def write_whole(path: Any, data: Any, dumper: Callable[..., Any], fs: Any = None, **arguments: Any) -> None:
    """Write a file under another name first; DVC's own lock lets no second process come here."""
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        dumper(data, file, **arguments)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def run(words: list[str]) -> int:
    """`dvc WORDS…` in this process; its exit status."""
    for module in (_common, _yaml):
        vars(module)["_dump_data"] = write_whole
    return main(words)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
