"""The report: one page, the same bytes twice, whole without its parts, and right in a browser."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from genpipe.errors import BadState
from genpipe.files import write_json
from genpipe.params.project import Params
from genpipe.report import metrics, plots
from genpipe.report.numerals import figure
from genpipe.report.page import write_report
from genpipe.sampling.pictures import write_animation
from tests.browser import chromium, emulate

SHA256 = "1ac30eac40003d60cf477796a6869dd819286a4ca62bf7d4fe1fc6d5c797228d"
HOSTILE = "<script>alert('&')</script>"
TRAIN = {"batch_size": 200, "steps": 2000, "solvers": {"nll": {"optimiser": "adam", "lr": 1e-3}}}
DIGITS = {
    "start": "none",
    "data": "datasets/digits",
    "judge": "models/classifier",
    "sample": {"num": 64},
}
COUPLETS = {
    "start": "none",
    "data": "encoded/couplets",
    "judge": "none",
    "sample": {"num": 64},
}
PARAMS = Params.model_validate(
    {
        "datasets": {
            "digits": {"kind": "digits", "source": "data/digits"},
            "couplets": {"kind": "couplets", "source": "data/poems/tang.jsonl"},
        },
        "corpora": {
            "couplets": {
                "dataset": "couplets",
                "files": ["train.jsonl"],
                "tokenizer": "char",
            }
        },
        "recipes": {
            "classifier": {"model": "classifier", "train": TRAIN, **DIGITS},
            "nice": {"model": "nice", "train": TRAIN, **DIGITS},
            "ogan": {"model": "ogan", "train": {**TRAIN, "solvers": {"ogan": {}}}, **DIGITS},
            "couplet": {"model": "couplet", "train": TRAIN, **COUPLETS},
        },
        "sets": {
            "quick": ["classifier", "nice", "couplet"],
            "images": ["classifier", "nice", "ogan"],
            "language": ["couplet"],
        },
    }
)
SECTIONS = [
    "overview", "provenance", "recipe-classifier", "recipe-nice", "recipe-ogan", "recipe-couplet", "corpus-couplets",
]  # fmt: skip
CURVES = {
    "classifier": {"loss": 0.05, "nll.loss": 0.05, "nll.accuracy": 0.98},
    "nice": {"loss": -1800.0, "nll.loss": -1800.0, "nll.bits_per_dim": 4.2},
    "ogan": {"loss": -0.6, "ogan.loss": -0.6, "ogan.correlation": 0.95, "ogan.score_gap": 0.1},
    "couplet": {"loss": 5.2, "nll.loss": 5.2, "nll.accuracy": 0.09},
}
METRICS = {
    "classifier": {"accuracy": 0.9873},
    "nice": {
        "bits_per_dim": 4.31, "frechet_classifier": 18.2, "frechet_real_vs_real": 0.31, "frechet_noise": 241.7,
        "frechet_num_images": 2000.0,
    },
    "ogan": {"frechet_classifier": 4.9, "frechet_noise": 241.7, "latent_correlation": 0.93, "brand_new": 0.25},
    "couplet": {
        "cross_entropy": 5.31, "cross_entropy_unigram": 6.75, "cross_entropy_shuffled": 5.9, "tone_opposition": 0.953,
        "tone_opposition_real": 0.921, "tone_opposition_shuffled": 0.61, "numeral_antithesis": 0.81,
        "numeral_antithesis_real": 0.79, "numeral_antithesis_shuffled": 0.08,
    },
}  # fmt: skip
PANELS = {
    "nice": [("grid.png", "Samples")],
    "ogan": [
        ("grid.png", "Samples"),
        ("reconstructions.png", "Reconstructions"),
        ("interpolation.png", "Interpolation"),
        ("a_new_kind.png", "A new kind"),
    ],
    "couplet": [("answers.tsv", "Answers")],
}
COUPLET_ROWS = [
    ("露結林疎葉", "風吹竹上花", "寒輕菊吐滋"),
    ("塞冷鴻飛疾", "山寒鳥語遲", "園秋蟬噪遲"),
    ("無邊落木蕭蕭下", "不盡寒山日日來", "不盡長江滾滾來"),
    ("明月松間照", "清風竹上生", "清泉石上流"),
]


def write_lines(path: Path, rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def write_grid(path: Path, rows: int, columns: int) -> None:
    """Digits in white on black tiles, as the pipeline lays them out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas = Image.new("L", (columns * 30 + 2, rows * 30 + 2), 255)
    draw = ImageDraw.Draw(canvas)
    for i in range(rows * columns):
        left, top = 2 + i % columns * 30, 2 + i // columns * 30
        draw.rectangle((left, top, left + 27, top + 27), fill=0)
        draw.text((left + 9, top + 3), str(i * 7 % 10), fill=255, font_size=20)
    canvas.save(path)


def write_datasets(artifacts: Path) -> None:
    for name, kind, counts in (
        ("digits", "digits", {"train_images.npy": 60000, "test_images.npy": 10000}),
        ("couplets", HOSTILE, {"train.jsonl": 34997, "test.jsonl": 1835}),
    ):
        source = {"kind": kind, "source": f"data/{name}", "sha256": SHA256, "counts": counts}
        write_json(artifacts / "datasets" / name / "source.json", source)
    np.save(artifacts / "datasets/digits/test_labels.npy", np.array([0, 1, 1, 2] * 5, dtype=np.uint8))


def write_corpus(artifacts: Path) -> None:
    tokens = ["\\n", "，", "不", "人", HOSTILE, *(chr(0x4E00 + 7 * i) for i in range(400))]
    counts = [round(90000 / (i + 1.5)) for i in range(len(tokens))]
    folder = artifacts / "counts" / "couplets"
    rows = [
        (i, token, count, f"{count / 7e5:.8f}")
        for i, (token, count) in enumerate(zip(tokens, counts, strict=True), 1)
    ]
    write_lines(folder / "top.tsv", [("rank", "token", "count", "share"), *rows])
    write_lines(folder / "zipf.tsv", [("rank", "count"), *((rank, count) for rank, _, count, _ in rows)])
    write_lines(folder / "growth.tsv", [("tokens", "types"), (1, 1), (1000, 90.5), (456789, 405)])
    write_lines(folder / "coverage.tsv", [("size", "share"), (1, 0.06), (100, 0.55), (405, 1.0)])
    write_lines(folder / "lengths.tsv", [("tokens", "documents"), (0, 2), (11, 20000), (15, 14995)])
    statistics = {"documents": 34997, "characters": 456789, "tokens": 456789, "types": 405, "bytes": 1400000}
    write_json(folder / "statistics.json", statistics)
    pq.write_table(pa.table({"token": tokens, "count": counts}), folder / "counts.parquet")
    write_json(artifacts / "vocabularies/couplets/statistics.json", {"size": 398, "coverage": 0.99871})


def write_recipes(artifacts: Path) -> None:
    rng = np.random.default_rng(0)
    for name, recipe in PARAMS.recipes.items():
        card = {
            "recipe": name, "seed": 1, "data": recipe.data,
            "train": {**recipe.train.model_dump(mode="json"), "network": {"note": HOSTILE}},
            "data_sha256": SHA256, "code_sha256": SHA256[::-1], "parameters": 1234567,
        }  # fmt: skip
        write_json(artifacts / "models" / name / "recipe.json", card)
        prose = f"# {name}\n\n{name.upper()}: what it is (Author, 2014, arXiv:1410.8516).\n\nHow it departs & why {HOSTILE}.\n\n- seed 1\n"
        (artifacts / "models" / name / "card.md").write_text(prose, encoding="utf-8")
        steps = np.arange(20, 2001, 20)
        noise = {column: rng.normal(0, 0.02, len(steps)) for column in CURVES[name]}
        noise["loss"] = noise[list(noise)[1]]  # `loss` is the first update's
        curve = {
            column: end
            + (abs(end) + 1) * (3 * np.exp(-steps / 120) * (1 if "loss" in column else -0.3) + noise[column])
            for column, end in CURVES[name].items()
        }
        rows = zip(steps, *(np.round(values, 5) for values in curve.values()), strict=True)
        write_lines(artifacts / "curves" / f"{name}.tsv", [("step", *curve), *rows])
        write_json(artifacts / "metrics" / f"{name}.json", METRICS[name])


def write_samples(artifacts: Path) -> None:
    (artifacts / "samples/classifier").mkdir(parents=True)
    for name in ("nice", "ogan"):
        write_grid(artifacts / "samples" / name / "grid.png", 8, 8)
    write_grid(artifacts / "samples/ogan/reconstructions.png", 4, 12)
    write_grid(artifacts / "samples/ogan/interpolation.png", 6, 12)
    write_grid(artifacts / "samples/ogan/a_new_kind.png", 2, 2)
    write_lines(
        artifacts / "samples/couplet/answers.tsv",
        [("source", "generated", "real"), (HOSTILE, "月", "時"), *COUPLET_ROWS * 10],
    )
    for name, files in PANELS.items():
        write_panels(artifacts / "samples" / name, *files)


def write_panels(directory: Path, *files: tuple[str, str]) -> None:
    """panels.json, as `genpipe sample` writes it: a row for each file and its title."""
    rows = [
        {
            "file": file,
            "show": "table" if file.endswith(".tsv") else "picture",
            "title": title,
            "caption": "c",
        }
        for file, title in files
    ]
    write_json(directory / "panels.json", rows)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    for write in (write_datasets, write_corpus, write_recipes, write_samples):
        write(root / "artifacts")
    write_report(root, PARAMS)
    return root


@pytest.fixture
def page(root):
    return read_page(root)


def read_page(root: Path) -> str:
    return (root / "artifacts/report/index.html").read_text(encoding="utf-8")


def test_two_runs_write_the_same_bytes_and_nothing_else(root, page):
    write_report(root, PARAMS)
    assert read_page(root) == page
    assert [path.name for path in (root / "artifacts/report").iterdir()] == ["index.html"]
    assert str(root) not in page


def test_the_page_asks_the_network_for_nothing(page):
    sources = re.findall(r"""\b(?:src|href|srcset|data|action)=["']?([^"'\s>]+)""", page)
    assert sources
    assert all(source.startswith(("#", "data:")) for source in sources)
    assert not re.search(r"url\(|@import|<script|https?:", page)


def test_text_of_data_and_parameters_is_escaped(page):
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") >= 4  # data set, parameters, word, couplet


def test_every_section_has_its_contents(page):
    assert re.findall(r'<section id="([^"]+)"', page) == SECTIONS
    parts = dict(zip(SECTIONS, re.split(r"<section id=", page)[1:], strict=True))
    assert parts["provenance"].count(SHA256) == 6
    assert "98.7 %" in parts["overview"]
    assert "Bits per dimension" in parts["recipe-nice"]
    assert "uniform distribution" in parts["recipe-nice"]
    assert "brand_new" in parts["recipe-ogan"]
    assert parts["recipe-ogan"].count("<img ") == 4
    assert parts["recipe-ogan"].index("Samples.") < parts["recipe-ogan"].index("Reconstructions.")
    assert "24 of 41" in parts["recipe-couplet"]
    assert parts["recipe-couplet"].count('class="plot"') == 2  # `loss` and `nll.loss` are one curve
    assert ">，<" not in parts["corpus-couplets"]
    assert "34,997" in parts["corpus-couplets"]


def test_what_has_not_run_is_named_with_its_command(tmp_path):
    """A recipe of which nothing is there is one line; of one that is trained the parts that are missing are named."""
    write_json(tmp_path / "artifacts/models/nice/recipe.json", {"train": {}})
    write_report(tmp_path, PARAMS)
    page = read_page(tmp_path)
    assert re.findall(r'<section id="([^"]+)"', page) == [
        "overview", "provenance", "recipe-nice", "corpus-couplets",
    ]  # fmt: skip
    for stage in (
        "prepare@digits", "prepare@couplets", "count@couplets", "vocabulary@couplets", "train@nice", "sample@nice",
        "evaluate@nice",
    ):  # fmt: skip
        assert f"dvc repro {stage}" in page
    for name in ("classifier", "ogan", "couplet"):
        assert page.count(f"dvc repro evaluate@{name}") == 1
        assert f"dvc repro train@{name}" not in page


def test_recipes_are_grouped_by_the_last_set_that_names_them(page):
    groups = dict(re.findall(r'<tbody id="group-(\w+)">(.*?)</tbody>', page, re.DOTALL))
    assert {name: re.findall(r'href="#recipe-(\w+)"', text) for name, text in groups.items()} == {
        "images": ["classifier", "nice", "ogan"],
        "language": ["couplet"],
    }
    assert re.findall(r'<li><a href="#group-(\w+)">', page) == list(groups)


def test_recipes_of_no_set_come_last(tmp_path):
    params = PARAMS.model_copy(update={"sets": {"language": ("couplet",)}})
    write_report(tmp_path, params)
    assert re.findall(r'<tbody id="group-(\w+)">', read_page(tmp_path)) == ["language", "others"]


def test_every_form_of_a_panel_is_drawn(tmp_path):
    """Points, lines of text, rows, and what is empty; the overview has the points again, small."""
    directory = tmp_path / "artifacts/samples/nice"
    write_lines(directory / "points.tsv", [("x", "y"), (0, 0), (1, 5), ("nan", 1), (100, -2)])
    write_lines(directory / "texts.txt", [(HOSTILE,), ("a line",)])
    write_lines(directory / "tags.tsv", [("text", "tags")])
    forms = {"points.tsv": "plot", "texts.txt": "text", "tags.tsv": "table"}
    rows = [{"file": f, "show": show, "title": f, "caption": "c"} for f, show in forms.items()]
    write_json(directory / "panels.json", rows)
    write_report(tmp_path, PARAMS)
    page = read_page(tmp_path)
    (plot,) = re.findall(r'<svg class="plot".*?</svg></svg>', page, re.DOTALL)
    assert plot.count('<circle class="point"') == 3
    (used,) = re.findall(r'<use href="#([^"]+)"', page)
    assert f'id="{used}"' in plot
    assert "a line" in page
    assert HOSTILE not in page
    assert "There are no rows." in page


def test_an_animation_is_left_out_where_a_reader_wants_no_motion_and_on_paper(tmp_path):
    directory = tmp_path / "artifacts/samples/nice"
    directory.mkdir(parents=True)
    write_animation(
        directory / "training.png", [np.zeros((6, 6, 1), np.uint8), np.ones((6, 6, 1), np.uint8)], 9
    )
    write_grid(directory / "stages.png", 1, 2)
    forms = {"training.png": "animation", "stages.png": "picture"}
    rows = [{"file": f, "show": show, "title": f, "caption": "c"} for f, show in forms.items()]
    write_json(directory / "panels.json", rows)
    write_report(tmp_path, PARAMS)
    page = read_page(tmp_path)
    figures = re.findall(r'<figure( class="moves")?>\s*<img ', page)
    assert figures == [' class="moves"', ""]
    assert "@media (prefers-reduced-motion: reduce) { .moves { display: none; } }" in page
    assert re.search(r"@media print {\s*\.moves { display: none; }", page)


def test_no_recipes_and_no_corpora_make_a_page_too(tmp_path):
    write_report(tmp_path, Params.model_validate({"datasets": {}}))
    assert "has no recipes" in read_page(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("metrics/nice.json", "[1]", "must be a JSON object, not list"),
        ("metrics/nice.json", '{"a": "b"}', "a: must be a number, not 'b'"),
        ("curves/nice.tsv", "step\tloss\n1\n", "line 2: must have 2 columns, has 1"),
        ("curves/nice.tsv", "loss\n1\n", "no column step; it has: loss"),
        ("curves/nice.tsv", "step\tloss\n1\tx\n", "must hold numbers"),
        ("samples/nice/panels.json", '[{"file": "grid.png"}]', "not a list of panels with"),
        ("samples/nice/answers.tsv", "a\tb\n1\n", "line 2: must have 2 columns, has 1"),
        ("samples/nice/grid.png", "no picture", "not a PNG picture"),
    ],
)
def test_a_broken_artifact_is_named_and_leaves_no_page(tmp_path, file, text, message):
    path = tmp_path / "artifacts" / file
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    if path.parent.name == "nice" and path.name != "panels.json":
        write_panels(path.parent, (path.name, "Samples"))
    with pytest.raises(BadState) as raised:
        write_report(tmp_path, PARAMS)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "artifacts/report").exists()


def test_each_metric_is_shown_once_beside_its_baselines():
    shown = metrics.rows(
        {"foo": 2.0, "foo_real": 1.0, "tone_opposition_real": 0.9, "tone_opposition": 0.5, "b": 0.0}
    )
    assert [row.label for row in shown] == ["Tone opposition", "b", "foo"]
    assert shown[0].baselines == (("real", "90.0"),)
    assert shown[2].baselines == (("real", "1.000"),)
    assert [row.label for row in metrics.rows({"foo_real": 1.0})] == ["foo_real"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.98734, "%", "98.7"), (4.3124, "bits", "4.312"), (-1804.3, "", "−1,804"), (2000.0, "", "2,000"), (0.0, "", "0"),
        (0.00312, "", "0.0031"), (2e-6, "", "2.0e−06"), (float("nan"), "", "not defined"), (float("inf"), "%", "not defined"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(value, unit, text):
    assert figure(value, unit) == text


@pytest.mark.parametrize(
    ("low", "high"), [(0, 2000), (-0.3, 0.05), (4.1, 4.13), (-1800, 5000), (1e-9, 3e-9), (2, 2)]
)
def test_ticks_are_round_distinct_and_inside_their_axis(low, high):
    axis = plots.linear_axis(low, high)
    places = [axis.place(value) for value, _ in axis.ticks]
    labels = [text for _, text in axis.ticks]
    assert 2 <= len(places) <= 7
    assert len(set(labels)) == len(labels)
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)


def test_points_far_from_the_others_are_inside_the_frame():
    x = [*([0.0] * 99), 1e6]
    svg = plots.scatter_plot(x, x, name="n", title="t")
    width, height = plots.WIDTH, plots.HEIGHT
    found = re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', svg)
    assert len(found) == 100
    assert all(
        plots.LEFT <= float(cx) <= width and 0 <= float(cy) <= height - plots.BOTTOM for cx, cy in found
    )


@pytest.mark.parametrize(
    "values", [[], [1.0], [2.0, 2.0], [float("nan"), 1.0, float("inf")], [1e30, 1.0, 2.0]]
)
def test_a_curve_of_any_length_is_drawn_without_undefined_coordinates(values):
    svg = plots.line_plot(list(range(len(values))), values, name="n", label="<l>", unit="")
    assert "nan" not in svg
    assert "inf" not in svg
    assert bool(svg) == bool(values)
    assert "<l>" not in svg


def test_a_running_mean_keeps_a_constant_and_the_length():
    assert plots.smoothed(np.full(7, 3.0)) == pytest.approx(np.full(7, 3.0))
    assert len(plots.smoothed(np.arange(1000.0))) == 1000


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (320, 640)])
def test_a_browser_shows_every_section_without_an_error(root, browser, width, height, dark):
    emulate(browser, width, height, dark)
    browser.get((root / "artifacts/report/index.html").as_uri())
    shown = browser.execute_script("""
        const box = element => element.getBoundingClientRect();
        return {
          width: window.innerWidth,
          overflow: document.documentElement.scrollWidth,
          sections: [...document.querySelectorAll("main > section")].filter(s => box(s).height > 100).map(s => s.id),
          unheaded: document.querySelectorAll("section:not(:has(h1, h2))").length,
          images: [...document.images].map(image => image.naturalWidth),
          plots: [...document.querySelectorAll("svg.plot")].map(plot => box(plot).width),
          dead: [...document.querySelectorAll("a[href^='#']")].filter(a => !document.querySelector(a.hash)).length,
          requests: performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:")).length,
          paper: getComputedStyle(document.body).backgroundColor,
        };""")
    assert browser.get_log("browser") == []
    assert shown["width"] == width
    assert shown["overflow"] <= width
    assert shown["sections"] == SECTIONS
    assert (shown["unheaded"], shown["dead"], shown["requests"]) == (0, 0, 0)
    assert len(shown["images"]) == 7
    assert all(shown["images"])
    assert len(shown["plots"]) == 13
    assert all(200 < plot <= width for plot in shown["plots"])
    brightness = sum(json.loads("[" + re.sub(r"[^\d,]", "", shown["paper"]) + "]"))
    assert (brightness < 200) == dark
