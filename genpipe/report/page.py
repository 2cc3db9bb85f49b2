"""The report: one HTML page that needs no network, written from whatever the stages have made so far."""

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from genpipe import yaml_text
from genpipe.dependencies import docstring_of
from genpipe.files import REPORT, new_directory
from genpipe.metrics import explained
from genpipe.params.corpora import Corpus
from genpipe.params.project import Params, RecipeParams
from genpipe.report import artifacts as reading
from genpipe.report import curves, metrics, plots
from genpipe.report.artifacts import Panel, Picture, Table

ROWS = 24  # of a table or text, shown
TOP_WORDS = 40  # shown
FOUND_WORDS = 24  # shown, of each order
EVIDENCE = {"solidity": "solidity, nats", "left_entropy": "before, nats", "right_entropy": "behind, nats"}
CORPUS_CURVES = [
    ("zipf", "rank", "count", plots.zipf_plot, "How often the token of each rank occurs. The dashed line has slope −1, Zipf's law."),
    ("growth", "tokens", "types", plots.growth_plot, "How many different tokens are expected in so many tokens of the text (Heaps' law). The dashed line has slope 1."),
    ("coverage", "size", "share", plots.coverage_plot, "The share of the running text that a vocabulary of the most frequent tokens makes up."),
    ("lengths", "tokens", "documents", plots.lengths_plot, "How many documents have each length; from 100 tokens on, the mean over the lengths with the same first two digits, not drawn below 1."),
]  # fmt: skip


@dataclass(frozen=True)
class DatasetView:
    """A row of the table of data sets."""

    name: str
    kind: str
    source: str
    sha256: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Chart:
    """A plot and the words under it."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class PanelView:
    """A panel as the page draws it: one of a picture, rows of a table, lines of text, and a plot."""

    title: str
    caption: str
    picture: Picture | None = None
    table: Table | None = None
    text: list[str] | None = None
    plot: Markup | None = None
    thumbnail: Markup | None = None  # of the plot
    moves: bool = False
    total: int = 0  # rows or lines that there are


@dataclass(frozen=True)
class RecipeView:
    """The section of a recipe; None stands for a stage that has not run."""

    name: str
    model: str
    title: str
    prose: tuple[str, ...]
    identity: Mapping[str, Any] | None
    settings: str
    charts: tuple[Chart, ...] | None
    rows: list[metrics.Row] | None
    panels: tuple[PanelView, ...] | None

    @property
    def key(self) -> metrics.Row | None:
        """The number that stands for the recipe."""
        return metrics.key_metric(self.rows or [])

    @property
    def has_run(self) -> bool:
        """Whether any of its stages has left something; a recipe of which none has is one line of the overview."""
        made = (self.identity, self.charts, self.rows, self.panels)
        return any(part is not None for part in made)


@dataclass(frozen=True)
class Group:
    """The recipes of a set of params.yaml, or those of none."""

    name: str
    recipes: tuple[RecipeView, ...]


@dataclass(frozen=True)
class CorpusView:
    """The section of a corpus; None stands for a stage that has not run."""

    name: str
    dataset: str
    tokenizer: str
    chosen: str
    statistics: Mapping[str, float] | None
    vocabulary: Mapping[str, float] | None
    words: Table
    long_words: Table
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class LexiconView:
    """The section of words that were found without labels; None stands for a stage that has not run."""

    name: str
    dataset: str
    method: str
    statistics: Mapping[str, Any] | None
    frequent: Table
    strong: Table
    typical: tuple[str, ...]
    beside: str | None


def write_report(root: Path, params: Params) -> None:
    """Write artifacts/report/index.html."""
    page = render(root / "artifacts", params)
    with new_directory(root / "artifacts" / "report", REPORT) as directory:
        (directory / "index.html").write_text(page, encoding="utf-8")
    path = root / "artifacts" / "report" / "index.html"
    print(f"wrote {path} ({len(page.encode()) / 1000:,.0f} kB); open it in a browser")


def render(artifacts: Path, params: Params) -> str:
    """The page as text; equal artifacts and parameters give equal text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = grouped(
        [recipe_view(artifacts, name, recipe) for name, recipe in params.recipes.items()], params
    )
    return environment.get_template("page.html").render(
        seed=params.seed,
        datasets={name: dataset_view(artifacts, name) for name in params.datasets},
        groups=groups,
        recipes=[recipe for group in groups for recipe in group.recipes if recipe.has_run],
        corpora=[corpus_view(artifacts, name, params) for name in params.corpora],
        lexicons=[lexicon_view(artifacts, name, params) for name in params.lexicons],
    )


def grouped(views: list[RecipeView], params: Params) -> list[Group]:
    """Each recipe in the last set of params.yaml that names it, in the order of the sets; those of no set come last."""
    place = {name: group for group, names in params.sets.items() for name in names}
    rest = "others" if place else "recipes"
    groups = {
        group: tuple(view for view in views if place.get(view.name, rest) == group)
        for group in (*params.sets, rest)
    }
    return [Group(name, found) for name, found in groups.items() if found]


def dataset_view(artifacts: Path, name: str) -> DatasetView | None:
    """Where a data set comes from, as its source.json says."""
    source = reading.read_record(artifacts / "datasets" / name / "source.json")
    if source is None:
        return None
    return DatasetView(
        name,
        str(source.get("kind", "")),
        str(source.get("source", "")),
        str(source.get("sha256", "")),
        dict(source.get("counts") or {}),
    )


def recipe_view(artifacts: Path, name: str, params: RecipeParams) -> RecipeView:
    """All that training, sampling and evaluation left of a recipe."""
    title, *prose = paragraphs(docstring_of(artifacts.parent, params.model))
    identity = reading.read_record(artifacts / "models" / name / "recipe.json")
    settings = (identity or {}).get("train") or params.train.model_dump(mode="json")
    rows = reading.read_numbers(artifacts / "metrics" / f"{name}.json")
    return RecipeView(
        name=name,
        model=params.model,
        title=title,
        prose=tuple(prose),
        identity=identity,
        settings=yaml_text.dump(settings).rstrip(),
        charts=charts(reading.read_columns(artifacts / "curves" / f"{name}.tsv", "step"), name),
        rows=None if rows is None else metrics.rows(rows),
        panels=panel_views(reading.read_panels(artifacts / "samples" / name), name),
    )


def corpus_view(artifacts: Path, name: str, params: Params) -> CorpusView:
    """All that counting left of a corpus."""
    corpus = params.corpora[name]
    counts = artifacts / "counts" / name
    table = reading.read_table(counts / "top.tsv", "rank", "token", "count") or []
    return CorpusView(
        name=name,
        dataset=corpus.dataset,
        tokenizer=corpus.tokenizer,
        chosen=chosen_tokens(corpus),
        statistics=reading.read_numbers(counts / "statistics.json"),
        vocabulary=reading.read_numbers(artifacts / "vocabularies" / name / "statistics.json"),
        words=top_words(table, 1),
        long_words=top_words(table, 2),
        charts=tuple(corpus_charts(counts, name)),
    )


def lexicon_view(artifacts: Path, name: str, params: Params) -> LexiconView:
    """The words that were found in a text, by how often they are there and by how strongly they are bound."""
    block = params.lexicons[name]
    folder = artifacts / "lexicons" / name
    table = reading.read_table(folder / "words.tsv", "word", "count", *EVIDENCE, "examples") or []
    typical = reading.read_table(folder / "typical.tsv", "word") or []
    bound = [row for row in table if row["solidity"]]
    strongest = sorted(bound, key=lambda row: (-float(row["solidity"]), row["word"]))
    return LexiconView(
        name=name,
        dataset=block.dataset,
        method=block.method,
        statistics=reading.read_record(folder / "statistics.json"),
        frequent=[word_row(row) for row in table[:FOUND_WORDS]],
        strong=[word_row(row) for row in strongest[:FOUND_WORDS]],
        typical=tuple(row["word"] for row in typical),
        beside=block.other,
    )


def word_row(row: Mapping[str, str]) -> dict[str, str]:
    """A row of words.tsv as it is shown."""
    evidence = {EVIDENCE[key]: f"{float(row[key]):.2f}" if row[key] else "–" for key in EVIDENCE}
    return {"word": row["word"], "count": f"{int(row['count']):,}", **evidence, "in context": row["examples"]}


def corpus_charts(counts: Path, name: str) -> Iterator[Chart]:
    """The curves that counting has left."""
    for file, x, y, plot, caption in CORPUS_CURVES:
        curve = reading.read_columns(counts / f"{file}.tsv", x, y)
        svg = plot(curve[x], curve[y], name=f"{file}-{name}") if curve else Markup("")
        if svg:
            yield Chart(caption, svg)


def chosen_tokens(corpus: Corpus) -> str:
    """Which tokens get an id, as a sentence."""
    rule = "Every token" if corpus.min_count == 1 else f"A token that occurs {corpus.min_count} times or more"
    limit = f", up to {corpus.max_size:,} of them," if corpus.max_size else ""
    return (
        f"{rule}{limit} is in the vocabulary; coverage is the share of the running text that these make up."
    )


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring, its first line apart."""
    first, _, rest = text.partition("\n")
    return [first, *(part.strip() for part in rest.split("\n\n") if part.strip())]


def charts(curve: Mapping[str, list[float]] | None, name: str) -> tuple[Chart, ...] | None:
    """A plot for each column of a curve; `loss` repeats the loss of the first update, so it is drawn once."""
    if curve is None:
        return None
    columns = {column: values for column, values in curve.items() if column != "step"}
    if any(column != "loss" and values == columns.get("loss") for column, values in columns.items()):
        del columns["loss"]
    drawn: list[Chart] = []
    for column, values in columns.items():
        metric = explained(column)
        unit = "share" if metric.unit == "%" else metric.unit
        svg = plots.line_plot(curve["step"], values, name=f"{name}-{column}", label=metric.label, unit=unit)
        drawn.append(Chart(metric.label, svg))
    return tuple(drawn)


def panel_views(panels: list[Panel] | None, name: str) -> tuple[PanelView, ...] | None:
    """The panels in the order of panels.json."""
    if panels is None:
        return None
    return tuple(_panel_view(panel, f"{name}-{number}") for number, panel in enumerate(panels))


def _panel_view(panel: Panel, name: str) -> PanelView:
    words, content = (panel.title, panel.caption), panel.content
    if panel.show in ("picture", "animation"):
        return PanelView(*words, picture=content, moves=panel.show == "animation")
    if panel.show == "table":
        return PanelView(*words, table=spread(content, ROWS), total=len(content))
    if panel.show == "text":
        return PanelView(*words, text=content[:ROWS], total=len(content))
    if curves.are_curves(list(content)):
        plot = curves.curves_plot(content, name=name, title=panel.title)
    else:
        plot = plots.scatter_plot(*list(content.values())[:2], name=name, title=panel.title)
    return PanelView(*words, plot=plot, thumbnail=plots.thumbnail(name) if plot else None)


def top_words(table: Table, letters: int) -> Table:
    """The first rows whose token has at least so many letters; punctuation and line breaks have none."""
    return [row for row in table if num_letters(row["token"]) >= letters][:TOP_WORDS]


def num_letters(token: str) -> int:
    """Letters, ideographs among them, of a token of top.tsv, where line breaks and tabs are escaped."""
    plain = token.replace("\\n", "").replace("\\t", "")
    return sum(unicodedata.category(character).startswith("L") for character in plain)


def spread(table: Table, n: int) -> Table:
    """`n` rows of a table, at equal distances."""
    return [table[i * len(table) // n] for i in range(n)] if n < len(table) else table
