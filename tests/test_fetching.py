"""Which raw data is fetched, and what Debian and npm packages become; real apt-get, dpkg-deb, npm layout and DVC."""

import gzip
import io
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from genpipe.cli import main
from genpipe.cli.data import _asked
from genpipe.errors import BadInput, Unavailable
from genpipe.files import sha256
from genpipe.graph import layout
from genpipe.sources.archives import Archive
from genpipe.sources.debian import read_deb
from genpipe.sources.fetch import PARTS, Part, fetch_data, named_parts, parts_of
from genpipe.sources.packages import unpack_emoji, unpack_fonts
from tasks.publish import _was_never_fetched
from tasks.workspace import Contents, open_workspace
from tests.repository import commit, dvc

REPOSITORY = Path(__file__).parents[1]
FONT = "usr/share/fonts/truetype/wqy/wqy-microhei.ttc"
needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The graph and the pins of this repository, without its data."""
    for name in ("dvc.yaml", "params.yaml", "requirements.lock", *(f"data/{p.directory}.dvc" for p in PARTS)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(REPOSITORY / name, tmp_path / name)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = True\n    analytics = False\n")
    return tmp_path


def parts(root: Path, *targets: str, set_name: str | None = None) -> list[str]:
    return [part.directory for part in _asked(root, [*targets], set_name)[0]]


# which parts


def test_each_source_is_fetched_for_the_data_sets_that_read_it(project: Path) -> None:
    assert parts(project, "glyphs") == ["glyphs"]
    assert parts(project, "prepare@emoji", "tang") == ["poems", "emoji"]
    assert parts(project, "train@nice") == ["digits"]
    assert parts(project, "biographies", "verses", "reviews") == ["poems", "authors", "reviews"]
    assert parts(project) == [part.directory for part in PARTS]


def test_make_run_fetches_only_what_its_flow_reads(project: Path) -> None:
    recipe = re.search(r"^run: install\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.M)
    assert recipe
    data, flow = (line.split()[1:] for line in recipe[1].splitlines())
    assert data == ["data", *flow[2:]]  # python -m flows.retrain TARGETS
    targets, set_name = data[1 : data.index("--set")], data[-1]
    assert parts(project, *targets, set_name=set_name) == ["digits", "poems"]


def test_folders_are_fetched_beside_what_stages_and_a_set_need(project: Path) -> None:
    assert parts(project, "data/authors") == ["authors"]
    assert parts(project, "data/authors", "glyphs") == ["authors", "glyphs"]
    assert parts(project, "data/authors", set_name="quick") == ["digits", "poems", "authors"]


def test_a_folder_is_named_by_its_path_and_a_data_set_of_the_same_name_is_not() -> None:
    assert named_parts(["data/authors", "data/poems.dvc", "./data/bible/"]) == (
        ["data/authors", "data/poems", "data/bible"],
        [],
    )
    assert named_parts(["poems", "data/letters", "evaluate@nice"]) == (
        [],
        ["poems", "data/letters", "evaluate@nice"],
    )


def test_a_source_in_a_part_or_above_it_needs_the_part() -> None:
    assert [part.directory for part in parts_of(["data/poems/tang.jsonl"])] == ["poems"]
    assert [part.directory for part in parts_of(["data"])] == [part.directory for part in PARTS]
    assert parts_of(["data/poems2", "my/digits"]) == ()


def test_a_name_that_is_neither_a_data_set_nor_a_stage_is_refused(project: Path) -> None:
    with pytest.raises(BadInput, match=r"no stage 'letters' in dvc\.yaml"):
        parts(project, "letters")
    with pytest.raises(BadInput, match=r"no 'letters' in sets of params\.yaml"):
        parts(project, set_name="letters")


@pytest.mark.parametrize("command", [["data"], ["plan"], ["results"]])
def test_two_sets_are_refused(project: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(project), *command, "--set", "quick", "--set", "images"])
    assert ended.value.code == 2
    assert "--set: given twice, as quick and images" in capsys.readouterr().err


def test_every_part_is_pinned_and_a_missing_part_is_no_change(project: Path) -> None:
    pins = {line.split()[0] for line in dvc(project, "status").splitlines() if ".dvc:" in line}
    assert pins == {f"data/{part.directory}.dvc:" for part in PARTS}


# Debian packages


def make_deb(
    folder: Path, name: str, files: dict[str, bytes], compression: str = "xz", version: str = "1.0"
) -> Path:
    """A package that dpkg-deb builds."""
    tree = folder / f"{name}-tree"
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: a\n"
    (tree / "DEBIAN/control").write_text(control)
    path = folder / f"{name}_{version}_all.deb"
    subprocess.run(["dpkg-deb", f"-Z{compression}", "-b", tree, path], check=True, capture_output=True)
    return path


@needs_dpkg
@pytest.mark.parametrize("compression", ["xz", "gzip", "none"])
def test_a_file_of_a_debian_package_is_read(tmp_path: Path, compression: str) -> None:
    for odd in (b"odd", b"even"):  # members begin at even offsets
        path = make_deb(tmp_path / odd.decode(), "font", {FONT: odd}, compression)
        assert read_deb(path, FONT) == odd


@needs_dpkg
def test_a_debian_package_without_the_file_is_named(tmp_path: Path) -> None:
    path = make_deb(tmp_path, "font", {"usr/share/doc/font/README": b"1"})
    with pytest.raises(BadInput, match=f"no file {FONT} can be read in it"):
        read_deb(path, FONT)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match="not a Debian package"):
        read_deb(path, FONT)


@needs_dpkg
def test_fonts_are_written_as_the_packages_have_them(tmp_path: Path) -> None:
    hei = make_deb(tmp_path, "hei", {FONT: b"hei"})
    kai = make_deb(tmp_path, "kai", {"usr/share/fonts/truetype/arphic/ukai.ttc": b"kai"})
    (tmp_path / "fonts").mkdir()
    unpack_fonts(hei, kai, tmp_path / "fonts")
    found = {path.name: path.read_bytes() for path in (tmp_path / "fonts").iterdir()}
    assert found == {"wqy-microhei.ttc": b"hei", "ukai.ttc": b"kai"}


def apt_options(folder: Path) -> tuple[str, ...]:
    """What makes apt-get read one source, the packages in `folder`, and write its lists beside them."""
    own = {
        "Dir::Etc::sourcelist": folder / "sources.list", "Dir::Etc::sourceparts": folder / "no",
        "Dir::Etc::parts": folder / "no", "Dir::State": folder / "state", "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache", "APT::Sandbox::User": "root",
    }  # fmt: skip
    return tuple(word for key, value in own.items() for word in ("-o", f"{key}={value}"))


@needs_dpkg
@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt-get")
def test_apt_get_fetches_a_pinned_package_and_tells_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "repository"
    deb = make_deb(folder, "font", {FONT: b"hei"})
    control = subprocess.run(["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True).stdout
    entry = f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha256(deb)}\n"
    (folder / "Packages.gz").write_bytes(gzip.compress(entry.encode()))
    (folder / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    (folder / "status").touch()
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    options = apt_options(folder)
    (tmp_path / "project").mkdir()
    part = Part(
        "fonts",
        (Archive("font=1.0", deb.name, sha256(deb), "apt-get", options),),
        lambda path, directory: (directory / "hei.ttc").write_bytes(read_deb(path, FONT)),
    )
    with pytest.raises(
        Unavailable, match=r"font=1\.0: apt-get could not fetch it: E: .*run `apt-get update`"
    ):
        fetch_data(tmp_path / "project", [], force=False, parts=(part,))
    subprocess.run(["apt-get", "-qq", *options, "update"], check=True, capture_output=True)
    fetch_data(tmp_path / "project", [], force=False, parts=(part,))
    assert (tmp_path / "project/data/fonts/hei.ttc").read_bytes() == b"hei"
    later = Part("fonts", (Archive("font=1.1", "x.deb", sha256(deb), "apt-get", options),), part.unpack)
    with pytest.raises(Unavailable, match=r"E: Version '1\.1' for 'font' was not found; .*--archive FILE"):
        fetch_data(tmp_path / "project", [], force=True, parts=(later,))


# openmoji


def test_emoji_are_one_line_each_with_the_emoji_without_skin_tones(tmp_path: Path) -> None:
    base = {"annotation": "boy", "group": "people-body", "subgroups": "person", "skintone_base_hexcode": ""}
    table = [
        {"hexcode": "1F466", **base},
        {"hexcode": "1F466-1F3FB", **base, "skintone_base_hexcode": "1F466"},
    ]
    members = {"data/openmoji.json": json.dumps(table)}
    members |= {f"color/svg/{row['hexcode']}.svg": f"<svg>{row['hexcode']}</svg>" for row in table}
    members |= {"black/svg/1F466.svg": "black"}
    path = tmp_path / "openmoji.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    (tmp_path / "emoji").mkdir()
    unpack_emoji(path, tmp_path / "emoji")
    lines = (tmp_path / "emoji/openmoji.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["base"] for record in records] == ["1F466", "1F466"]
    assert [record["svg"] for record in records] == ["<svg>1F466</svg>", "<svg>1F466-1F3FB</svg>"]
    assert {record["group"] for record in records} == {"people-body"}


def test_pinned_data_that_no_stage_of_a_workspace_reads_may_be_missing(small_project: Path) -> None:
    (small_project / "extra").write_text("never fetched")
    dvc(small_project, "add", "-q", "extra")
    commit(small_project, "more data")
    (small_project / "extra").unlink()

    def lose(content: bytes) -> None:
        for path in (small_project / ".dvc/cache").rglob("*"):
            if path.is_file() and path.read_bytes() == content:
                path.unlink()

    lose(b"never fetched")
    pins = ("data.dvc", "extra.dvc")
    for targets in (("train@nice",), ()):
        workspace = open_workspace(small_project, Contents({}, targets, pins=pins))
        assert (workspace / "data/numbers.txt").read_text() == "1 2 3\n"
    lose(b"1 2 3\n")
    with pytest.raises(Unavailable, match=r"^data\.dvc: the raw data is not in the cache of DVC"):
        open_workspace(small_project, Contents({}, ("prepare",), pins=pins))


def test_raw_data_that_was_never_fetched_does_not_stop_a_publication(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/glyphs.dvc").write_text("outs: []\n")
    assert _was_never_fetched(tmp_path, "data/glyphs/")
    assert _was_never_fetched(tmp_path, "data/glyphs/ukai.ttc")
    assert not _was_never_fetched(tmp_path, "data/glyphs2/ukai.ttc")
    assert not _was_never_fetched(tmp_path, "artifacts/models/nice/")
    (tmp_path / "data/glyphs").mkdir()
    assert not _was_never_fetched(tmp_path, "data/glyphs/ukai.ttc")


def test_dvc_sees_the_raw_data_of_this_project():
    """DVC leaves out folders that it takes for ignored by Git, with the .dvc files in them."""
    assert {f"data/{part.directory}" for part in PARTS} <= layout(REPOSITORY).outs
