"""What the bits of floating point depend on besides the code: the kind of processor, and the builds of the libraries.

Kernels are chosen by instruction set, MKL's by the maker of the processor too, so that two kinds of machine end on other
weights, and both in one training on a third result.
"""

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from genpipe.nn.portable import is_portable

CPUINFO = Path("/proc/cpuinfo")
MAKER = re.compile(r"^(?:vendor_id|CPU implementer)\s*:\s*(.+)$", re.MULTILINE)
BUILDS = {"mkl": r"Math Kernel Library Version (\S+)", "onednn": r"MKL-DNN v(\S+)"}
EXTENSIONS = (
    "avx512_bf16",
    "amx_bf16",
)  # by which oneDNN chooses kernels, and torch's name of the set does not say
SETTINGS = (
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "OPENBLAS_CORETYPE",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
)  # of those libraries


@functools.cache
def processor() -> Mapping[str, str]:
    """What bits depend on here: the builds of torch's libraries and, unless they are portable, the kind of processor.

    That is its maker, the instruction set as torch uses it, and the settings of the libraries.
    """
    builds = {name: re.search(pattern, torch.__config__.show()) for name, pattern in BUILDS.items()}
    found = {name: build[1] for name, build in builds.items() if build}
    if is_portable():
        return {"numerics": "portable", **found}
    known = torch.cpu.get_capabilities()
    extensions = [name for name in EXTENSIONS if known.get(name)]
    return {
        "numerics": "native",
        "maker": _maker(known.get("cpu_name", "unknown")),
        "instructions": " ".join([torch.backends.cpu.get_cpu_capability(), *extensions]),
        **found,
        **{name: os.environ[name] for name in SETTINGS if os.environ.get(name)},
    }


def libraries() -> Mapping[str, str]:
    """The versions of the libraries that compute."""
    return {module.__name__: module.__version__.split("+")[0] for module in (torch, np)}


def described(parts: Mapping[str, str]) -> str:
    """A kind of machine in words."""
    return ", ".join(f"{name} {value}" for name, value in parts.items())


def _maker(name: str) -> str:
    """As Linux has it, else the first word of the processor's name."""
    found = MAKER.search(CPUINFO.read_text()) if CPUINFO.exists() else None
    return found[1].strip() if found else name.split()[0]
