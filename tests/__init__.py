"""Tests compute as artifacts do, whatever the processor."""

import sys

from genpipe import numerics

if "torch" not in sys.modules:  # else the process was started to compute otherwise
    numerics.use("portable")
