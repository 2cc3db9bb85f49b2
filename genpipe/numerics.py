"""Which instructions the libraries compute with; imports neither NumPy nor torch, which read it once, when they start.

Kernels are chosen by what a processor can do, and MKL's by its maker too, so that the last bits of a sum depend on the
machine. `portable` limits each library to one choice that every x86-64 processor with AVX2 has. What still differs there is
replaced by genpipe/nn/portable.py.
"""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from genpipe import yaml_text
from genpipe.errors import BadInput, BadState

Numerics = Literal["portable", "native"]
DEFAULT: Numerics = "native"
# the order of NumPy's sums depends on the number of these threads, by default that of the cores
ONE_THREAD: Mapping[str, str] = MappingProxyType({"OPENBLAS_NUM_THREADS": "1"})
PORTABLE: Mapping[str, str] = MappingProxyType(
    {
        **ONE_THREAD,
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        # its other branches follow the maker: MKL_CBWR=AVX2 changes nothing on AMD
        "MKL_CBWR": "COMPATIBLE",
        "OPENBLAS_CORETYPE": "Haswell",
        # every set above AVX2 that this NumPy has code for; it ignores, with a warning, a list that names any other
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    }
)


def of(root: Path) -> Numerics:
    """What params.yaml of a project says; the default where it says nothing or cannot be read, which its command reports."""
    try:
        values = yaml_text.read(root / "params.yaml")
    except (OSError, BadInput):
        return DEFAULT
    said = values.get("numerics") if isinstance(values, dict) else None
    return "portable" if said == "portable" else DEFAULT


def settings(numerics: Numerics) -> Mapping[str, str]:
    """The variables of the environment of a process that computes so; on another architecture, those of native."""
    return PORTABLE if numerics == "portable" and is_x86() else ONE_THREAD


def is_x86() -> bool:
    """Whether this machine is of the architecture that `portable` is for."""
    return platform.machine() in ("x86_64", "AMD64")


def use(numerics: Numerics) -> None:
    """Let this process, and those that it starts, compute so.

    Raises BadState where they are to be portable, and NumPy or torch has been imported already with other settings.
    """
    late = numerics == "portable" and [
        name for name, value in settings(numerics).items() if os.environ.get(name) != value
    ]
    if late and (imported := [name for name in ("torch", "numpy") if name in sys.modules]):
        raise BadState(
            f"numerics: {numerics} must be set before {' and '.join(imported)} is imported, and {', '.join(late)} "
            "are not; call genpipe.numerics.use first, or run genpipe in a process of its own"
        )
    os.environ.update(settings(numerics))


def are_set(numerics: Numerics) -> bool:
    """Whether this process has the settings."""
    return all(os.environ.get(name) == value for name, value in settings(numerics).items())
