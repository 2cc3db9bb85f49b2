"""The operations that recipes use, and small trainings, on this processor and on emulated ones.

    python -m tests.processors                    # what all recipes end on here, a minute; qemu-x86_64 -cpu EPYC before it: there
    python -m tests.processors nice couplet       # some recipes

A dispatch mode notes each operation of training, sampling and evaluation with what it was given; the notes are then played
again elsewhere. Emulation is qemu-user's, Debian's package of that name.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from genpipe import yaml_text
from genpipe.data.opening import open_data
from genpipe.evaluation.judge import Trial, judged
from genpipe.evaluation.judges import JUDGES
from genpipe.models import RECIPES
from genpipe.nn import portable
from genpipe.sampling.panels import Showing, show_all
from genpipe.sampling.text import speller_in
from genpipe.training.logical import Alone
from genpipe.training.trainer import Trainer
from tests import exactness, tiny
from tests.reference import REFERENCE

EMULATOR = "qemu-x86_64"
HERE = "this machine"
PROCESSORS = {"Intel Haswell": "Haswell", "AMD EPYC": "EPYC", "Intel Skylake": "Skylake-Client"}
REASON = f"no {EMULATOR}: apt-get install qemu-user"
ROOT = Path(__file__).parents[1]
# what is not computed, or differs by purpose: memory that nobody has written yet
UNWRITTEN = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}

SHIPPED = "as shipped"  # the network of params.yaml, for four steps
NAMES = (*exactness.NAMES, *REFERENCE, *(f"{name}, {SHIPPED}" for name in RECIPES))

Call = tuple[str, tuple[Any, ...], dict[str, Any]]  # operation, arguments, named arguments


class Notes(TorchDispatchMode):
    """Notes the first call of each operation with these types, and sizes on the same side of a few bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[tuple[Any, ...], Call] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        key = (func.name(), *_kinds((args, kwargs)))
        is_computed = func.namespace != "profiler" and func.overloadpacket.__name__ not in UNWRITTEN
        if is_computed and key not in self.calls:
            self.calls[key] = (func.name(), *tree_map(_kept, (args, kwargs)))
        return func(*args, **kwargs)


def _kinds(values: Any) -> Iterator[tuple[Any, ...]]:
    """The type, the number of dimensions, the layout and the magnitude of each tensor."""
    for value in tree_flatten(values)[0]:
        if isinstance(value, torch.Tensor):
            yield value.dtype, value.dim(), value.is_contiguous(), value.numel().bit_length()


def _kept(value: Any) -> Any:
    """A copy with its strides. A generator is torch's own, and seeded; a memory format cannot be written."""
    if isinstance(value, torch.Tensor):
        storage = value.detach().untyped_storage().clone()
        empty = torch.empty(0, dtype=value.dtype)
        return empty.set_(storage, value.storage_offset(), value.shape, value.stride())
    return None if isinstance(value, torch.Generator | torch.memory_format) else value


def digest_of(call: Call) -> str:
    """MD5 of what an operation gives, and of what it left in its arguments."""
    name, args, kwargs = call
    space, _, rest = name.partition("::")
    packet, _, overload = rest.partition(".")
    operation = getattr(getattr(getattr(torch.ops, space), packet), overload or "default")
    torch.manual_seed(0)
    with torch.no_grad():
        result = operation(*args, **kwargs)
    return digest(tree_flatten((result, args, kwargs))[0])


def digest(values: Iterable[Any]) -> str:
    """MD5 of tensors and numbers."""
    md5 = hashlib.md5()
    for value in values:
        if isinstance(value, torch.Tensor):
            flat = value.detach().contiguous().flatten()
            md5.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        else:
            md5.update(repr(value).encode())
    return md5.hexdigest()


def environment() -> dict[str, str]:
    """That of a process that computes alone."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def on(processor: str, words: Sequence[str], timeout: float) -> list[str]:
    """The lines that `python -m tests.processors WORDS…` prints on a processor: HERE, or one of PROCESSORS."""
    emulated = [EMULATOR, "-cpu", PROCESSORS[processor]] if processor != HERE else []
    done = subprocess.run(
        [*emulated, sys.executable, "-m", "tests.processors", *words],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{processor}: {' '.join(words)}: {done.stderr[-2000:]}")
    return done.stdout.splitlines()


def trained_everywhere(names: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each emulated processor, and the digests of the trainings of these recipes there."""
    names = list(names)
    for processor in PROCESSORS:
        lines = on(processor, ["--only-trainings", *names], 7200)[1:]
        yield processor, dict(zip(names, (line.rpartition("\t")[2] for line in lines), strict=True))


def is_emulated() -> bool:
    """Whether other processors can be emulated here."""
    return shutil.which(EMULATOR) is not None


def trainer(name: str, directory: Path) -> Trainer:
    """A small training of a recipe of NAMES; its data is written beside."""
    recipe, _, variant = name.partition(", ")
    if variant != SHIPPED:
        return exactness.trainer(name, directory, Alone(), None)
    shipped = yaml_text.read(ROOT / "params.yaml")["recipes"][recipe]["train"]
    changes = {"network": shipped.get("network", {}), "steps": 4, "batch_size": 40}
    data = tiny.data_for(recipe, directory.with_name(f"{directory.name}-data-0"))
    previous, tiny.ALL[recipe] = tiny.ALL[recipe], {**tiny.ALL[recipe], "network": changes["network"]}
    try:
        return tiny.trainer_of(recipe, data, directory, **changes)
    finally:
        tiny.ALL[recipe] = previous


def life(name: str, directory: Path) -> Iterator[tuple[str, str]]:
    """What a small recipe ends on: the digests of its training, of its samples, and of its metrics."""
    training = trainer(name, directory / "run")
    training.fit()
    yield "train", exactness.digest_of(directory / "run")
    model = name.partition(",")[0]
    if model not in tiny.MODELS:
        return
    kind = tiny.kind_of(model)
    place = directory / "run-data-0" / "artifacts" / "encoded" / tiny.data_of(model)
    recipe, data = training.recipe.eval(), open_data(place, tiny.ALL[model].get("batches", {}))
    samples, speller = directory / "samples", speller_in(place)
    samples.mkdir()
    with torch.no_grad():
        show_all(
            Showing(
                recipe=recipe,
                data=data,
                kind=kind,
                num=24,
                seed=1,
                how=tiny.how_of(model),
                speller=speller,
                directory=samples,
            )
        )
        yield "sample", digest(path.read_bytes() for path in sorted(samples.iterdir()))
        yardstick: Any = tiny.recipe_of("classifier", data).eval() if kind == "images" else None
        trial = Trial(
            recipe, data, kind, "test", samples, lambda: yardstick, speller, 1, how=tiny.how_of(model)
        )
        yield "evaluate", digest(sorted(judged(trial, JUDGES, name).items()))


def note(names: Iterable[str], file: Path) -> None:
    """Write the calls of these recipes' lives."""
    notes = Notes()
    for name in names:
        with tempfile.TemporaryDirectory() as directory, notes:
            list(life(name, Path(directory)))
    torch.save(list(notes.calls.values()), file)


def play(file: Path) -> Iterator[tuple[str, str]]:
    """The operation of each call in a file, and the digest of what it gives here."""
    for call in torch.load(file, weights_only=False):
        kinds = " ".join(str(kind[0]).removeprefix("torch.") + str(kind[1]) for kind in _kinds(call[1:]))
        yield f"{call[0]} {kinds}", digest_of(call)


def live(names: Iterable[str], parts: int | None = None) -> Iterator[tuple[str, str]]:
    """The digests of the lives of recipes, or of their first parts."""
    for name in names:
        with tempfile.TemporaryDirectory() as directory:
            for part, found in islice(life(name, Path(directory)), parts):
                yield f"{name}: {part}", found


def main() -> int:
    """Do one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--note", type=Path, metavar="FILE", help="note the operations of recipes in a file")
    parser.add_argument(
        "--play", type=Path, metavar="FILE", help="play noted operations again, and print digests"
    )
    parser.add_argument("--only-trainings", action="store_true", help="no samples and no metrics")
    parser.add_argument("names", nargs="*", metavar="RECIPE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    portable.install()
    for name, row in REFERENCE.items():
        RECIPES.setdefault(name, row.make)
    print(f"portable: {portable.is_portable()}", flush=True)
    if arguments.note:
        note(arguments.names or NAMES, arguments.note)
        return 0
    lives = live(arguments.names or NAMES, 1 if arguments.only_trainings else None)
    for what, found in play(arguments.play) if arguments.play else lives:
        print(f"{what}\t{found}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
