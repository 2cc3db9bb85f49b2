"""Ratios against named peers or an older build, alternated on this machine."""

from pathlib import Path

from genpipe import numerics

# as the commands of the project here compute; before anything imports NumPy or torch
numerics.use(numerics.of(Path.cwd()))
