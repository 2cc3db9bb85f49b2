"""Ratios against named peers or an older build, alternated on this machine."""

from pathlib import Path

from genpipe.numerics import of, use

# as the commands of the project here compute; before anything imports NumPy or torch
use(of(Path.cwd()))
