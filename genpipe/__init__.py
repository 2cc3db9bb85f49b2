"""Data-and-training workflows, and trained models for use from Python.

Where a model is named, it is a recipe that is trained in the project at `root`, the directory of a trained model, or a version
of the registry, as ogan@prod. Training data is not needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def load(
    model: str | Path, root: str | Path = "."
) -> Any:  # a Recipe: what else it can do depends on the model
    """A trained model, in evaluation mode, on the CPU.

    What it can do are the methods of genpipe/capabilities.py:

        ogan = genpipe.load("artifacts/models/ogan")
        codes = ogan.encode({"images": torch.rand(5, 1, 28, 28)})  # [5, 32]
        images = ogan.decode(codes, {})["images"]  # [5, 1, 28, 28], in [0, 1]

    Raises BadState where a file of the directory is missing, and BadInput where one is damaged.
    """
    from genpipe.assembly import load_trained  # imports torch, which takes seconds
    from genpipe.using.model import found

    with found(Path(root), str(model)) as directory:
        return load_trained(directory).recipe


def sample(
    model: str | Path,
    num: int = 16,
    *,
    seed: int = 0,
    given: Mapping[str, Any] | None = None,
    how: Mapping[str, Any] | None = None,
    root: str | Path = ".",
) -> dict[str, Any]:
    """What `genpipe sample` draws: {"images": [num, channels, height, width] in [0, 1]}, or points, or ids of text.

        genpipe.sample("gan_conditional", 64, given={"labels": 7})
        genpipe.sample("gan_conditional", 20, given={"labels": [0, 1, 2, 3, 4]})  # again and again

    Raises BadInput for a class that there is not, for a condition that is missing or that the model does not take, and for an
    unknown option.
    """
    from genpipe.using.making import drawn
    from genpipe.using.model import conditions_of, found, opened

    with found(Path(root), str(model)) as directory:
        using = opened(directory)
        return dict(drawn(using, num, seed, conditions_of(using, given or {}), how or {}))


def encode(
    model: str | Path,
    inputs: Sequence[str | Path] | Any,
    *,
    given: Mapping[str, Any] | None = None,
    root: str | Path = ".",
) -> Any:
    """The codes of files of pictures, of texts, or of images as a tensor, float [n, latent]; features where there are no codes.

        genpipe.encode("ogan", ["three.png", "seven.png"])
        genpipe.encode("ogan", torch.rand(5, 1, 28, 28))

    Pictures of another size are resized, and a line on standard error says so; a tensor of another size is a BadInput.
    """
    from genpipe.using.making import codes_of
    from genpipe.using.model import found, opened

    with found(Path(root), str(model)) as directory:
        return codes_of(opened(directory), inputs, given or {})


def answer(
    model: str | Path,
    inputs: Sequence[str],
    *,
    passages: Sequence[str] = (),
    how: Mapping[str, Any] | None = None,
    root: str | Path = ".",
) -> list[str]:
    """What `genpipe answer` prints for each input: a text, tags, a class and its probability, or the text with its gaps filled.

        genpipe.answer("unilm_titles", ["明月松間照，清泉石上流。"])
        genpipe.answer("masked_lm", ["床前明＿光"])
        genpipe.answer("unilm_biographies", ["鄭江是哪裏人？"], passages=["鄭江，歙縣人。", "楊炯，華陰人。"])

    Raises BadInput where the model answers nothing, where an option is unknown, and for a text of which it knows no token.
    """
    from genpipe.using.answering import answers
    from genpipe.using.model import found, opened

    with found(Path(root), str(model)) as directory:
        return answers(opened(directory), inputs, how or {}, passages)


def embed(
    model: str | Path,
    names: Sequence[str | Path],
    out: str | Path,
    *,
    field: str = "text",
    root: str | Path = ".",
) -> None:
    """Write the folder `out` with the sentences of files and their vectors, as `genpipe embed` does.

        genpipe.embed("similarity_am", ["lines.txt"], "build/sentences")

    Raises BadInput where the model has no features of texts, a file cannot be read, or `out` holds other files.
    """
    from genpipe.using.embedding import embed
    from genpipe.using.model import found, opened
    from genpipe.using.sentences import lines_of

    words = [str(name) for name in names]
    with found(Path(root), str(model)) as directory:
        embed(opened(directory), lines_of(words, field), Path(out).resolve(), [Path(word) for word in words])


def open_index(folder: str | Path, *, exact: bool = False) -> Any:  # using.embedding.Index
    """The sentences of a folder that `genpipe embed` wrote, ready for queries.

        index = genpipe.open_index("build/sentences")
        ((cosine, text), *others) = index.search(["in the beginning"], num=10)[0]

    With `exact` it looks at all sentences, else at those to which its graph of neighbours leads. Raises BadState where a file of the
    folder is missing or damaged.
    """
    from genpipe.using.embedding import Index
    from genpipe.using.model import opened

    return Index(opened(Path(folder).resolve()), exact)


def interpolate(
    model: str | Path,
    inputs: Sequence[str | Path] | Any = (),
    *,
    steps: int = 8,
    seed: int = 0,
    given: Mapping[str, Any] | None = None,
    root: str | Path = ".",
) -> Any:
    """Images at equal angles between the codes of two pictures, or of two samples: [steps, channels, height, width], in [0, 1].

    genpipe.interpolate("ogan", ["three.png", "seven.png"])
    genpipe.interpolate("wgan_gp", seed=2)  # between two samples
    """
    from genpipe.using.making import interpolated
    from genpipe.using.model import found, opened

    with found(Path(root), str(model)) as directory:
        return interpolated(opened(directory), inputs, steps, seed, given or {})


def prepare(
    source: str | Path, out: str | Path, kind: str = "image_folder", **options: Any
) -> dict[str, Any]:
    """Make a data set of raw data of your own, as `genpipe prepare` does; returns what source.json says of it.

    `options` are the keys of a block of `datasets` in params.yaml, without `source`:

        genpipe.prepare("my/faces", "artifacts/datasets/faces", image_size=32)  # a sub-folder for each class
        faces = genpipe.open_data("artifacts/datasets/faces")

    Raises BadInput where an option or the source is not valid; then nothing is written.
    """
    from genpipe.sources.datasets import prepare_from

    return prepare_from(Path(source).resolve(), Path(out).resolve(), {**options, "kind": kind}).record()


def open_data(directory: str | Path) -> Any:  # data.loader.Data
    """A data set in a directory that `genpipe prepare` or `genpipe encode` wrote: its splits, facts and examples.

        test = next(iter(genpipe.open_data("artifacts/datasets/digits").split("test")))
        test["images"]  # uint8 [100, 1, 28, 28]

    Raises BadState where a file of it is missing or damaged.
    """
    from genpipe.data.opening import open_data

    return open_data(Path(directory))
