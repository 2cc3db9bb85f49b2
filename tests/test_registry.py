"""The registry on real repositories: promote, list, trace, roll back, pull."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from gto import api

from genpipe.cli import main
from genpipe.errors import BadInput, BadState, Unavailable
from genpipe.git import GitFailed, remote_of
from genpipe.params.project import read_params
from genpipe.registry.promotion import Decision, promote, rollback
from genpipe.registry.pull import pull
from genpipe.registry.tags import read_model
from genpipe.registry.trace import split_name
from tasks.judging import versions
from tasks.publish import is_outstanding, publish
from tests.registered_project import copy_template, make_template, rerun, tags, write_data
from tests.repository import be_somebody, dvc, run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two versions: quality 1 is v0.0.1, quality 2 is v0.0.2 and in production."""
    home = tmp_path_factory.mktemp("template")
    make_template(home)
    root = home / "project"
    with pytest.MonkeyPatch.context() as patch:
        be_somebody(patch)
        release(root)
        rerun(root, nice=2)
        release(root)
    return home


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    be_somebody(monkeypatch)
    return copy_template(template, tmp_path)


def release(root: Path) -> Decision:
    """Publish, and what became of `nice`."""
    published = publish(root, "run")
    (decision,) = promote(root, published.commit, read_params(root).promotion, published.remote)
    return decision


def production(root: Path) -> str | None:
    version = read_model(root, "nice").production()
    return version.name if version else None


def remote_tags(root: Path) -> list[str]:
    return tags(root.parent / "remote.git")


FOUR = ["nice#prod#1", "nice#prod#2", "nice@v0.0.1", "nice@v0.0.2"]


def test_models_that_pass_are_versions_in_production_here_and_on_the_remote(root: Path) -> None:
    assert tags(root) == remote_tags(root) == FOUR
    assert production(root) == "v0.0.2"
    shown = api.show(str(root), "nice")
    assert {version["version"]: bool(version["stages"]) for version in shown} == {
        "v0.0.1": False,
        "v0.0.2": True,
    }
    message = run(root, "git", "tag", "--list", "--format=%(taggername): %(subject)", "nice#prod#2")
    assert message.startswith(
        "genpipe: promotion of v0.0.2 over v0.0.1: bits_per_dim is 3, must be at most 4.5;"
    )


def test_a_worse_model_leaves_production_as_it_is_and_is_told_why(root: Path) -> None:
    rerun(root, nice=1.5)
    decision = release(root)
    assert decision.action == "refuse"
    assert (
        decision.why
        == "bits_per_dim is 3.5, v0.0.2 has 3: a gain of -0.5, must be at least 0.1 (missed by 0.6)"
    )
    assert tags(root) == remote_tags(root) == FOUR
    assert not is_outstanding(root, read_params(root).promotion)


def test_the_same_weights_are_no_new_version(root: Path) -> None:
    """Another model of the project changed, so there is another dvc.lock; this one is what it was."""
    (root / "README.md").write_text("new\n")
    rerun(root, nice=2, judge=1)
    assert release(root).why == "these weights are v0.0.2, in production"
    write_data(root, "7 8 9\n")
    rerun(root, nice=2)
    again = release(root)  # the data changed, the weights did not
    assert (again.action, again.version and again.version.name) == ("keep", "v0.0.2")
    assert tags(root) == FOUR


def test_a_changed_judge_makes_gains_void_and_bounds_hold(root: Path) -> None:
    rerun(root, nice=1.2, judge=5)
    decision = release(root)
    assert decision.action == "promote"
    assert "not compared with v0.0.2, measured by another state of artifacts/models/judge" in decision.why
    rerun(root, nice=0.1, judge=6)
    assert release(root).action == "refuse"
    assert production(root) == "v0.0.3"


def test_metrics_of_earlier_weights_do_not_count(root: Path) -> None:
    rerun(root, nice=2)
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("quality: 2", "quality: 9"))
    run(root, "git", "commit", "-q", "-a", "-m", "train only")
    dvc(root, "repro", "-q", "train@nice")
    decision = release(root)
    assert (decision.action, decision.why) == (
        "keep",
        "its metrics are not those of its weights; evaluate it",
    )


def test_a_rule_about_an_unknown_metric_makes_no_tag(root: Path) -> None:
    rerun(root, [{"metric": "accuracy", "direction": "maximise", "bound": 1}], nice=3)
    with pytest.raises(
        BadInput, match=r"nice has no metric 'accuracy' \(has: bits_per_dim, latent_correlation\)"
    ):
        release(root)
    assert tags(root) == FOUR


def test_a_run_that_ended_between_the_version_and_the_stage_is_finished_by_the_next(root: Path) -> None:
    rerun(root, nice=3)
    commit = publish(root, "run").commit
    api.register(str(root), "nice", commit)
    assert is_outstanding(root, read_params(root).promotion)
    assert release(root).action == "promote"
    assert production(root) == "v0.0.3"
    assert remote_tags(root) == tags(root) == sorted([*FOUR, "nice#prod#3", "nice@v0.0.3"])


def test_tags_that_were_not_pushed_are_pushed_by_the_next_run(root: Path) -> None:
    for tag in ("nice#prod#2", "nice@v0.0.2"):
        run(root.parent / "remote.git", "git", "tag", "-d", tag)
    assert is_outstanding(root, read_params(root).promotion)
    assert release(root).action == "keep"
    assert remote_tags(root) == FOUR


def test_of_two_clones_that_promote_the_better_one_wins_and_the_other_is_judged_against_it(
    root: Path,
) -> None:
    """The second does not know of the first one's version, and gives its own the same number."""
    other = root.parent / "other"
    shutil.copytree(root, other, symlinks=True)
    rerun(other, nice=4)
    rerun(root, nice=3)
    assert release(other).action == "promote"
    api.register(str(root), "nice", publish(root, "mine").commit)  # v0.0.3, too, and not yet pushed
    decision = release(root)
    assert decision.action == "refuse"
    assert "v0.0.3 has 1" in decision.why
    assert tags(root) == remote_tags(root) == sorted([*FOUR, "nice#prod#3", "nice@v0.0.3"])


def test_a_promotion_that_cannot_be_pushed_leaves_no_tag(root: Path) -> None:
    rerun(root, nice=3)
    published = publish(root, "run")
    hook = root.parent / "remote.git/hooks/pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(GitFailed, match="git push: "):
        promote(root, published.commit, read_params(root).promotion, published.remote)
    assert tags(root) == FOUR
    hook.unlink()
    assert release(root).action == "promote"


def test_a_rollback_is_a_new_tag_and_can_be_rolled_back_further(root: Path) -> None:
    rerun(root, nice=3)
    release(root)
    before, now = rollback(root, "nice", None, remote_of(root))
    assert (before.name, now.name, production(root)) == ("v0.0.3", "v0.0.2", "v0.0.2")
    assert "nice#prod#4" in remote_tags(root)
    shown = run(root, "git", "tag", "--list", "--format=%(taggername): %(subject)", "nice#prod#4")
    assert shown == "Ada: rollback of production from v0.0.3 to v0.0.2\n"
    assert rollback(root, "nice", None, remote_of(root))[1].name == "v0.0.1"
    with pytest.raises(
        BadState, match=r"nice@v0.0.1 is the first in production: there is no earlier version"
    ):
        rollback(root, "nice", None, remote_of(root))
    assert rollback(root, "nice", "v0.0.3", remote_of(root))[1].name == production(root) == "v0.0.3"


def test_the_next_run_does_not_undo_a_rollback(root: Path) -> None:
    rollback(root, "nice", None, remote_of(root))
    decision = release(root)
    assert decision.action == "keep"
    assert "genpipe rollback nice --to v0.0.2 brings them back" in decision.why
    assert production(root) == "v0.0.1"
    assert not is_outstanding(root, read_params(root).promotion)


@pytest.mark.parametrize(
    ("name", "wanted", "complaint"),
    [
        ("nice", "v9.9.9", r"nice@v9.9.9: no such version or stage; it has: v0.0.1, v0.0.2, prod"),
        ("nice", "prod", "nice@v0.0.2 is in production already"),
        ("nicer", None, "nicer: no version is in production"),
    ],
)
def test_a_rollback_to_nowhere_is_one_line(root: Path, name: str, wanted: str | None, complaint: str) -> None:
    with pytest.raises((BadInput, BadState), match=complaint):
        rollback(root, name, wanted, remote_of(root))
    assert tags(root) == FOUR


def test_the_command_rolls_back_and_wants_a_model_alone(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(root, "rollback", "nice@v0.0.1") == 2
    assert "run genpipe rollback nice --to v0.0.1" in capsys.readouterr().err
    assert command(root, "rollback", "nice") == 0
    assert capsys.readouterr().out == "nice@v0.0.1 is in production again, in place of v0.0.2\n"


def test_a_rollback_that_cannot_be_pushed_changes_nothing(root: Path) -> None:
    run(root, "git", "remote", "set-url", "origin", "http://ada:hunter2hunter2@127.0.0.1:1/remote.git")
    with pytest.raises(GitFailed, match="git fetch: ") as caught:
        rollback(root, "nice", None, remote_of(root))
    assert "hunter2" not in str(caught.value)
    assert (production(root), tags(root)) == ("v0.0.2", FOUR)


def command(root: Path, *words: str) -> int:
    return main(["--root", str(root), *words])


def test_models_lists_versions_stages_and_metrics(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(root, "models") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("nice@v0.0.2   prod ")
    assert first.endswith("bits_per_dim 3, latent_correlation 1")
    assert second.startswith("nice@v0.0.1   -  ")
    assert command(root, "models", "nice", "--json") == 0
    assert [row["stages"] for row in json.loads(capsys.readouterr().out)] == [["prod"], []]
    assert command(root, "models", "nicer") == 2
    assert "nicer: no version of it is registered; there is nice" in capsys.readouterr().err


def test_trace_goes_from_a_tag_back_to_the_raw_data(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(root, "trace", "nice@v0.0.1") == 0
    told = capsys.readouterr().out
    for part in (
        "nice: nice@v0.0.1",
        "metrics   bits_per_dim 4, latent_correlation 0.5",
        "trained   on cpu, with torch 2.13.0",
        f"Python {platform.python_version()}",
        "libraries not recorded",
        'param   recipes.nice.train = {"batch_size": 8',
        '{"quality": 1}',
        "code    code ",
        "from    artifacts/datasets/digits",
        "prepare@digits: python stage.py prepare digits",
        "data    data/digits.txt",
    ):
        assert part in told
    assert command(root, "trace", "nice@prod", "--json") == 0
    lineage = json.loads(capsys.readouterr().out)
    assert (lineage["where"], lineage["stages"]) == ("nice@v0.0.2", ["prod"])
    assert platform.machine() in lineage["machine"]
    assert lineage["libraries"] == {}
    (parent,) = lineage["origin"]["parents"]
    assert parent["origin"]["data"][0]["path"] == "data/digits.txt"


def test_trace_names_the_libraries_that_the_training_recorded(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    libraries = {"torch": "2.13.0", "numpy": "2.4.6", "sympy": "1.14.0"}
    entry = {"train.nice": {"models/nice": "dc2b786b47eb80a3", "libraries": libraries}}
    lock["stages"]["train@nice"]["params"]["artifacts/code.json"] = entry
    (root / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert command(root, "trace", "nice") == 0
    assert "libraries 3 pinned: torch 2.13.0, numpy 2.4.6\n" in capsys.readouterr().out
    assert command(root, "trace", "nice", "--json") == 0
    assert json.loads(capsys.readouterr().out)["libraries"] == libraries


def test_a_model_whose_recipe_is_gone_is_judged_by_name_only(root: Path) -> None:
    assert [version.name for version in versions(root, [])] == ["nice@v0.0.2", "nice@v0.0.1"]
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["recipes"]["newer"] = params["recipes"].pop("nice")
    (root / "params.yaml").write_text(yaml.safe_dump(params | {"promotion": {}}))
    with pytest.raises(BadState, match="no model of a recipe"):
        versions(root, [])
    assert [version.name for version in versions(root, ["nice@prod"])] == ["nice@v0.0.2"]


def test_trace_of_the_workspace_needs_no_version(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rerun(root, nice=7)
    assert command(root, "trace", "nice") == 0
    told = capsys.readouterr().out
    assert "nice: the workspace" in told
    assert '{"quality": 7}' in told
    assert command(root, "trace", "judge@prod") == 2
    assert "judge@prod: no such version or stage; no version of it is registered" in capsys.readouterr().err
    assert command(root, "trace", "nicer") == 2
    assert "nicer: no such model in dvc.lock; it has judge, nice" in capsys.readouterr().err


def test_trace_does_without_the_weights(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(root / ".dvc/cache")
    shutil.rmtree(root.parent / "store")
    assert command(root, "trace", "nice@v0.0.1") == 0
    assert "trained   on an unknown device" in capsys.readouterr().out


def weights_in(directory: Path) -> object:
    return json.loads((directory / "weights.safetensors").read_text())


def test_pull_writes_the_weights_and_the_card_of_a_version(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "pulled"
    assert command(root, "pull", "nice@v0.0.1", "--out", str(out)) == 0
    assert sorted(path.name for path in out.iterdir()) == ["card.md", "recipe.json", "weights.safetensors"]
    assert weights_in(out) == {"quality": 1}
    assert command(root, "pull", "nice@prod", "--out", str(out)) == 0
    assert weights_in(out) == {"quality": 2}


def test_pull_gets_from_the_remote_what_the_cache_has_not(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / ".dvc/cache")
    dvc(root, "remote", "modify", "-q", "--local", "store", "url", str(root.parent / "moved"))
    (root.parent / "store").rename(
        root.parent / "moved"
    )  # only config.local, which no clone has, knows where
    pull(root, "nice", "nice@v0.0.1", tmp_path / "pulled")
    assert weights_in(tmp_path / "pulled") == {"quality": 1}


def test_pull_leaves_alone_a_directory_that_holds_something_else(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "recipe.json").write_text("{}")
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match=r"would delete thesis\.txt, which this command did not write"):
        pull(root, "nice", "nice@v0.0.1", out)
    assert sorted(path.name for path in out.iterdir()) == ["recipe.json", "thesis.txt"]
    with pytest.raises(BadInput, match=r"thesis\.txt: a file is there"):
        pull(root, "nice", "nice@v0.0.1", out / "thesis.txt")


def test_pull_leaves_alone_a_directory_that_is_only_named_as_a_file_of_a_model(
    root: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine" / "recipe.json" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with pytest.raises(BadInput, match=r"would delete recipe\.json"):
        pull(root, "nice", "nice@v0.0.1", tmp_path / "mine")
    assert mine.read_text() == "years of work"


def test_pull_of_what_is_nowhere_or_damaged_leaves_nothing(root: Path, tmp_path: Path) -> None:
    (file,) = [
        path
        for path in (root / ".dvc/cache/files/md5").rglob("*")
        if path.is_file() and path.read_bytes() == b'{"quality": 1}'
    ]
    file.chmod(0o644)
    file.write_bytes(b'{"quality": 6}')
    with pytest.raises(BadState, match="its cache is damaged"):
        pull(root, "nice", "nice@v0.0.1", tmp_path / "pulled")
    shutil.rmtree(root / ".dvc/cache")
    shutil.rmtree(root.parent / "store")
    with pytest.raises(Unavailable, match="neither in DVC's cache nor to be had from its remote"):
        pull(root, "nice", "nice@v0.0.1", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    assert list(tmp_path.glob("*.partial")) == list(tmp_path.glob(".*.partial")) == []


@pytest.mark.parametrize("name", ["../nice@prod", "nice@", "@prod", "a/b", "nice prod", ""])
def test_a_name_that_is_no_model_is_one_line(name: str) -> None:
    with pytest.raises(BadInput, match="name a model as MODEL, MODEL@VERSION or MODEL@STAGE"):
        split_name(name)


@pytest.mark.parametrize("version", ["../../etc/passwd", "--help", "HEAD", "v0.0.1:dvc.lock", "prod#1"])
def test_a_version_is_one_of_the_registry_and_nothing_else(root: Path, version: str) -> None:
    with pytest.raises(BadInput, match="no such version or stage"):
        read_model(root, "nice").named(version)


def test_a_tag_that_somebody_made_by_hand_is_no_version(root: Path) -> None:
    run(root, "git", "tag", "nice@v9.0.0")
    run(root, "git", "tag", "a-note")
    assert [version.name for version in read_model(root, "nice").versions] == ["v0.0.1", "v0.0.2"]
    assert api.find_latest_version(str(root), "nice").version == "v0.0.2"


def test_a_version_by_hand_of_a_commit_without_weights_is_in_nobodys_way(root: Path) -> None:
    run(root, "git", "tag", "-a", "nice@v9.0.0", "-m", "by hand", "HEAD")
    with pytest.raises(BadInput, match=r"nice@v9\.0\.0: its commit has no weights of nice"):
        rollback(root, "nice", "v9.0.0", None)
    rerun(root, nice=3)
    assert release(root).action == "promote"
    assert production(root) == "v9.0.1"


def test_without_a_remote_versions_are_local(root: Path) -> None:
    run(root, "git", "remote", "remove", "origin")
    rerun(root, nice=3)
    assert release(root).action == "promote"
    assert production(root) == "v0.0.3"
    assert rollback(root, "nice", None, remote_of(root))[1].name == "v0.0.2"
    assert remote_tags(root) == FOUR


def test_tags_of_commits_that_the_remote_lacks_stay_here(root: Path) -> None:
    """A tag would make their dvc.lock public, and nobody has pushed its objects."""
    run(root, "git", "remote", "remove", "origin")
    rerun(root, nice=3)
    assert release(root).action == "promote"
    run(root, "git", "remote", "add", "origin", "../remote.git")
    rerun(root, nice=4)
    assert release(root).action == "promote"
    assert remote_tags(root) == sorted([*FOUR, "nice#prod#4", "nice@v0.0.4"])


def test_help_of_the_commands_imports_nothing_heavy() -> None:
    code = "import sys; from genpipe.cli import build_parser; build_parser(); print(sorted({'gto', 'yaml', 'torch'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_no_tag_of_anybody_ends_the_registry(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(
        root, "git", "tag", "-a", "a-note", "-m", "a subject with\ta tab,\fa form feed and \u2028 a separator"
    )
    run(root, "git", "tag", "-a", "nice@v8.0.0", "-m", "tab\there", "HEAD")
    run(root, "git", "tag", "-a", "nice@v9.0.0", "-m", "a blob", "HEAD:README.md")
    run(root, "git", "tag", "-a", "nice#prod#9", "-m", "a tree", "HEAD^{tree}")
    assert command(root, "models", "nice") == 0
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()] == [
        "nice@v8.0.0",
        "nice@v0.0.2",
        "nice@v0.0.1",
    ]
    assert "tag 'nice@v9.0.0' is left out: it names a blob, not a commit" in shown.err
    assert "tag 'nice#prod#9' is left out: it names a tree, not a commit" in shown.err
    assert command(root, "trace", "nice@prod") == 0
    rerun(root, nice=3)
    assert release(root).action == "promote"
    assert production(root) == "v9.0.1"  # a name can be taken once
    assert "nice#prod#10" in tags(root)
    assert command(root, "rollback", "nice") == 0
    assert production(root) == "v0.0.2"


def test_a_branch_of_somebody_with_a_separator_in_its_name_does_not_end_publishing(root: Path) -> None:
    run(root, "git", "push", "-q", "origin", "HEAD:refs/heads/a\u2028b")
    run(root, "git", "fetch", "-q", "origin")
    rerun(root, nice=3)
    assert release(root).action == "promote"


def test_the_tags_are_as_gto_writes_and_reads_them(root: Path) -> None:
    run(root, "git", "config", "tag.gpgSign", "true")  # nobody is there to type a passphrase
    rerun(root, nice=3)
    assert release(root).action == "promote"
    (now, *_) = api.show(str(root), "nice")
    assert (now["version"], now["author"]) == ("v0.0.3", "genpipe")
    (stage,) = now["stages"]
    assert (stage["stage"], stage["author"]) == ("prod", "genpipe")
    run(root, "git", "config", "tag.gpgSign", "false")
    run(root, "git", "commit", "-q", "--allow-empty", "-m", "more")
    assert api.register(str(root), "nice", "HEAD").version == "v0.0.4"


def deprecate(root: Path) -> None:
    """As `gto deprecate nice` does, later than all that was tagged before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_COMMITTER_DATE", "2099-01-01T00:00:00Z")
        run(root, "git", "tag", "-a", "nice@deprecated", "-m", "Deprecating artifact 'nice'")


def test_what_is_deprecated_is_listed_so_and_never_promoted_or_rolled_back_to(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.deprecate(str(root), "nice")
    run(root, "git", "tag", "-d", "nice@deprecated")
    # later than the promotion: within the same second GTO would take the model for an active one
    deprecate(root)
    assert api.show(str(root)) == {}  # GTO shows it no more
    assert command(root, "models") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("nice@v0.0.2   prod,deprecated ")
    assert told[1].startswith("nice@v0.0.1   deprecated ")
    assert told[2] == "nice@v0.0.2 is deprecated and still prod; genpipe rollback nice puts another there"
    with pytest.raises(
        BadState,
        match=r"nice@v0\.0\.2 is the first in production: .* no earlier version that is not deprecated",
    ):
        rollback(root, "nice", None, None)
    with pytest.raises(BadInput, match=r"nice@v0\.0\.1 is deprecated; name another"):
        rollback(root, "nice", "v0.0.1", None)
    rerun(root, nice=3)
    decision = release(root)
    assert (decision.action, decision.why) == (
        "keep",
        "deprecated; gto register nice or gto assign nice takes it up again",
    )
    assert not is_outstanding(root, read_params(root).promotion)


def test_a_model_that_a_person_takes_up_again_is_promoted_and_its_old_versions_stay_deprecated(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deprecate(root)
    commit = rerun(root, nice=3)
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2099-01-01T00:00:01Z")
    run(root, "git", "tag", "-a", "nice@v0.1.0", "-m", "again", commit)
    model = read_model(root, "nice")
    assert [(v.name, v.is_deprecated) for v in model.versions] == [
        ("v0.0.1", True),
        ("v0.0.2", True),
        ("v0.1.0", False),
    ]
    assert release(root).action == "promote"
    with pytest.raises(BadInput, match=r"nice@v0\.0\.2 is deprecated"):
        rollback(root, "nice", "v0.0.2", None)
