"""Text to counts, vocabularies and token ids: exact, and the same bytes on any number of processes."""

import os

os.environ.setdefault(
    "POLARS_MAX_THREADS", "1"
)  # before polars is imported: there is a process for each core
