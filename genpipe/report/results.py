"""Tables of results for Markdown pages, from params.yaml and artifacts/metrics.

A page has a table between two marks, and all text outside of them is left as it is:

    <!-- results: set=quick -->                                       a line a metric
    <!-- results: set=adversarial metrics=frechet_classifier,coverage --> a line a recipe
    <!-- results: model=ogan -->                                      all recipes of a model, and a picture
    <!-- end of results -->

Recipes that differ in `train.seed` alone are one line: the mean, and ± the standard deviation of one of them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from genpipe.errors import BadInput
from genpipe.files import new_file, read_json
from genpipe.metrics import METRICS, explained, metric
from genpipe.params.project import Params
from genpipe.report.artifacts import read_numbers
from genpipe.report.metrics import arranged
from genpipe.report.numerals import count, figure

MARK = re.compile(r"<!-- results:(?P<what>[^\n]*?) *-->\n(?P<table>.*?)<!-- end of results -->", re.DOTALL)
BEGINS = re.compile(r"<!-- results:|<!-- end of results -->")
ARROWS = {"minimise": " ↓", "maximise": " ↑"}
NO_RIVALS = ("real", "deviation")  # how what stands beside a metric begins where it is not there to be beaten


@dataclass(frozen=True)
class Group:
    """Recipes that differ in the seed of their training alone, those of them that were judged, and their metrics."""

    name: str
    model: str
    members: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: tuple[Mapping[str, float], ...]

    def values(self, name: str) -> list[float]:
        """A metric of each member that has it."""
        return [values[name] for values in self.metrics if name in values]

    def means(self) -> dict[str, float]:
        """The mean of each metric."""
        names = dict.fromkeys(name for values in self.metrics for name in values)
        return {name: fmean(self.values(name)) for name in names}

    def shown(self, name: str) -> str:
        """A metric as a cell of a table."""
        found, unit = self.values(name), explained(name).unit
        if not found:
            return "–"
        value = figure(fmean(found), unit)
        spread = f" ± {figure(stdev(found), unit)}" if len(found) > 1 else ""
        return value + spread + (" %" if unit == "%" else "")

    @property
    def title(self) -> str:
        """What the line of a table is called."""
        return self.name + (f" ({len(self.metrics)} seeds)" if len(self.metrics) > 1 else "")


def groups(root: Path, params: Params, names: Sequence[str]) -> list[Group]:
    """The recipes of these names, those that differ in the seed alone together, in their order."""
    together: dict[str, list[str]] = {}
    for name in names:
        block = params.recipes[name].model_dump(mode="json")
        del block["train"]["seed"]
        together.setdefault(json.dumps(block, sort_keys=True), []).append(name)
    found: list[Group] = []
    for members in together.values():
        read = {name: read_numbers(root / "artifacts/metrics" / f"{name}.json") for name in members}
        judged = {name: values for name, values in read.items() if values}
        seeds = (params.recipes[name].train.seed for name in judged)
        used = tuple(params.seed if seed is None else seed for seed in seeds)
        model = params.recipes[members[0]].model
        found.append(Group(min(members, key=len), model, tuple(members), used, tuple(judged.values())))
    return found


def long_table(found: Sequence[Group]) -> list[str]:
    """A line a metric."""
    lines = ["| recipe | metric | value | beside it |", "|---|---|---:|---|"]
    for group in found:
        for name, beside in arranged(group.means()):
            known = explained(name)
            if not known.direction:  # a sample size
                continue
            label = known.label + (f", {known.unit}" if known.unit not in ("", "%") else "")
            mark = " %" if known.unit == "%" else ""
            others = "; ".join(f"{what} {figure(value, known.unit)}{mark}" for what, value in beside.items())
            label += ARROWS.get(known.direction, "")
            lines.append(f"| {group.title} | {label} | {group.shown(name)} | {others} |")
    return lines


def wide_table(found: Sequence[Group], columns: Sequence[str]) -> list[str]:
    """A line a recipe that has one of these metrics, a line for what stands beside them, and what is not better than that."""
    found = [group for group in found if any(group.values(name) for name in columns)]
    heads = [explained(name).label + ARROWS.get(explained(name).direction, "") for name in columns]
    lines = [f"| recipe | {' | '.join(heads)} |", "|---|" + "---:|" * len(columns)]
    lines += [f"| {group.title} | {' | '.join(group.shown(name) for name in columns)} |" for group in found]
    beside = {name: [dict(arranged(group.means())).get(name, {}) for group in found] for name in columns}
    labels = dict.fromkeys(label for name in columns for others in beside[name] for label in others)
    for label in labels:
        cells = [_range([x[label] for x in beside[name] if label in x], name) for name in columns]
        lines.append(f"| *{label}* | {' | '.join(cells)} |")
    return [*lines, *_compared(found, columns, list(labels))]


def _range(values: Sequence[float], name: str) -> str:
    """One number where all recipes have the same beside them, else the least and the greatest."""
    if not values:
        return "–"
    unit = explained(name).unit
    ends = dict.fromkeys(figure(end(values), unit) for end in (min, max))
    return "–".join(ends) + (" %" if unit == "%" else "")


def _compared(found: Sequence[Group], columns: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    """A sentence for each baseline that is no real data: what is not better."""
    for name in columns:
        direction = explained(name).direction
        sign = {"minimise": 1, "maximise": -1}.get(direction, 0)
        for label in labels:
            if not sign or label.startswith(NO_RIVALS):
                continue
            both = [
                (group, group.means()[name], beside[label])
                for group in found
                if label in (beside := dict(arranged(group.means())).get(name, {}))
            ]
            worse = [group.name for group, value, other in both if sign * value >= sign * other]
            if both:
                said = (
                    f"not better than *{label}*: {', '.join(worse)}"
                    if worse
                    else f"all are better than *{label}*"
                )
                yield f"\n{explained(name).label}: {said}."


def table(root: Path, params: Params, options: Mapping[str, str], where: str) -> list[str]:
    """The lines that stand between two marks. Raises BadInput, begun with `where`, for what is not in params.yaml."""
    names = _chosen(params, options, where)
    columns = [name for name in options.get("metrics", "").split(",") if name]
    for name in columns:
        metric(name, where)
    found = groups(root, params, names)
    judged = [group for group in found if group.metrics]
    lines = [_origin(options, judged)]
    if judged:
        lines += ["", *(wide_table(judged, columns) if columns else long_table(judged))]
        lines += _sizes(judged)
    if missing := [name for group in found for name in group.members if not group.metrics]:
        lines += ["", f"Not run yet: {', '.join(missing)}."]
    return lines


def _origin(options: Mapping[str, str], judged: Sequence[Group]) -> str:
    """What made the figures."""
    seeds = sorted({seed for group in judged for seed in group.seeds})
    if not seeds:
        return "Nothing of this is measured yet."
    stages = " ".join(f"evaluate@{name}" for group in judged for name in group.members)
    made = f"python -m flows.retrain --set {options['set']}" if "set" in options else f"dvc repro {stages}"
    spread = (
        " Several seeds: the mean ± the standard deviation of one training."
        if any(len(group.metrics) > 1 for group in judged)
        else ""
    )
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    return f"Measured by `{made}`, {which}; written by `genpipe results --write`.{spread}"


def _sizes(judged: Sequence[Group]) -> Iterator[str]:
    """The sample sizes of the metrics, the least and the greatest of all recipes."""
    names = [name for name in METRICS if not METRICS[name].direction]
    found = {name: [x for group in judged for x in group.values(name)] for name in names}
    sizes = [
        f"{METRICS[name].label}: {'–'.join(dict.fromkeys(count(end(values)) for end in (min, max)))}"
        for name, values in found.items()
        if values and not METRICS[name].unit
    ]
    if sizes:
        yield f"\n{'; '.join(sizes)}."


def _chosen(params: Params, options: Mapping[str, str], where: str) -> list[str]:
    """The recipes of a set, or of a model, in the order of params.yaml; all without either."""
    if unknown := options.keys() - {"set", "model", "metrics"}:
        raise BadInput(f"{where}: no option {min(unknown)!r}; there is: set, model, metrics")
    if "set" in options and options["set"] not in params.sets:
        raise BadInput(f"{where}: no set {options['set']!r} in params.yaml; it has: {', '.join(params.sets)}")
    inside = params.sets[options["set"]] if "set" in options else tuple(params.recipes)
    return [
        name
        for name, recipe in params.recipes.items()
        if name in inside and options.get("model", recipe.model) == recipe.model
    ]


def write_pages(root: Path, params: Params) -> list[Path]:
    """Write the tables of docs/results.md and docs/models anew; the files that changed.

    A page of a model that has no marks gets them at its end. All is made before anything is written.
    """
    made: dict[Path, bytes] = {}
    for page in sorted([root / "docs/results.md", *(root / "docs/models").glob("*.md")]):
        if page.exists():
            text = page.read_text(encoding="utf-8")
            if page.parent.name == "models" and not MARK.search(text) and page.stem in _models(params):
                text = f"{text.rstrip()}\n\n<!-- results: model={page.stem} -->\n<!-- end of results -->\n"
            made |= filled(root, params, page, text)
    changed = [path for path, content in made.items() if not path.exists() or path.read_bytes() != content]
    for path in changed:
        with new_file(path) as partial:
            partial.write_bytes(made[path])
    return changed


def _models(params: Params) -> set[str]:
    return {recipe.model for recipe in params.recipes.values()}


def filled(root: Path, params: Params, page: Path, text: str) -> dict[Path, bytes]:
    """A page with its tables, and the picture that it shows."""
    if len(BEGINS.findall(text)) != 2 * len(MARK.findall(text)):
        raise BadInput(
            f"{page}: a mark of results is not closed; write <!-- end of results --> below each table"
        )
    files: dict[Path, bytes] = {}

    def anew(match: re.Match[str]) -> str:
        words = [word.partition("=") for word in match["what"].split()]
        options = {key: value for key, _, value in words}
        lines = table(root, params, options, f"{page}: <!-- results:{match['what']} -->")
        if "model" in options:
            pictures = picture(root, params, options["model"], page.parent)
            files.update(pictures)
            lines += [f"\n![What {path.stem} makes]({path.name})" for path in pictures]
        opening = text[match.start() : match.start("table")]
        return opening + "\n".join(lines) + "\n" + text[match.end("table") : match.end()]

    return {page: MARK.sub(anew, text).encode(), **files}


def picture(root: Path, params: Params, model: str, folder: Path) -> dict[Path, bytes]:
    """The first picture of the recipe with the longest training of a model; the one that the page has where samples are not there."""
    named = [name for name, recipe in params.recipes.items() if recipe.model == model]
    order = sorted(named, key=lambda name: (name != f"{model}_full", name != model))
    for name in order:
        panels = root / "artifacts/samples" / name / "panels.json"
        rows = read_json(panels) if panels.exists() else []
        for row in rows:
            if row["show"] == "picture":
                return {folder / f"{name}.png": (panels.parent / row["file"]).read_bytes()}
        if (folder / f"{name}.png").exists():
            return {folder / f"{name}.png": (folder / f"{name}.png").read_bytes()}
    return {}
