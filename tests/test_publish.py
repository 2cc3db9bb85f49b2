"""Publishing, on real Git and DVC repositories with real remotes."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from genpipe.errors import BadState
from tasks.changes import require_clean
from tasks.publish import PublishFailed, is_outstanding, publish
from tests.registered_project import (
    branches,
    commit_sources,
    json_at,
    lines,
    rerun,
    tags,
    write_data,
    write_params,
)
from tests.repository import as_somebody, dvc, run

HERE = Path(__file__).resolve().parent.parent
PUBLISH = "import pathlib; from tasks.publish import publish; publish(pathlib.Path.cwd(), 'run')"


@pytest.fixture
def root(registered_project: Path) -> Path:
    return registered_project


def remote_branches(root: Path) -> list[str]:
    return branches(root.parent / "remote.git")


def state_of(root: Path) -> tuple[str, str, str, bytes, str]:
    """All that a person who works here sees, and would miss."""
    return (
        run(root, "git", "status", "--porcelain"),
        run(root, "git", "symbolic-ref", "HEAD"),
        run(root, "git", "rev-parse", "HEAD"),
        (root / ".git/index").read_bytes(),
        run(root, "git", "stash", "list"),
    )


def is_complete(root: Path, clone: Path, branch: str) -> bool:
    """Whether somebody else gets all that a branch names: a fresh clone, `dvc pull`, nothing out of date."""
    run(root.parent, "git", "clone", "-q", "--branch", branch, "remote.git", str(clone))
    dvc(clone, "pull", "-q")
    return dvc(clone, "status").strip() == "Data and pipelines are up to date."


def test_lock_and_metrics_are_on_a_branch_of_the_bot_and_the_objects_are_there(root: Path) -> None:
    published = publish(root, "swift-otter")
    assert published.branch == "genpipe/run-swift-otter"
    assert (published.remote, published.is_new) == ("origin", True)
    assert remote_branches(root) == [published.branch]
    assert json_at(root, published.commit, "artifacts/metrics/nice.json") == {
        "bits_per_dim": 4,
        "latent_correlation": 0.5,
    }
    changed = run(root, "git", "diff", "--name-only", "HEAD", published.commit).split()
    assert changed == ["artifacts/metrics/judge.json", "artifacts/metrics/nice.json", "dvc.lock"]
    assert run(root, "git", "show", "--no-patch", "--format=%an %cn", published.commit) == "genpipe genpipe\n"
    assert is_complete(root, root.parent / "clone", published.branch)


def test_what_is_checked_out_staged_and_edited_is_not_touched(root: Path) -> None:
    (root / "README.md").write_text("staged\n")
    run(root, "git", "add", "README.md")
    (root / "README.md").write_text("staged and edited\n")
    before = state_of(root)
    publish(root, "run")
    assert state_of(root) == before
    assert (root / "README.md").read_text() == "staged and edited\n"


def test_the_same_lock_is_published_once(root: Path) -> None:
    first = publish(root, "one")
    (root / "README.md").write_text("another\n")
    commit_sources(root, "what no stage reads")
    second = publish(root, "two")
    assert (second.commit, second.branch, second.is_new) == (first.commit, first.branch, False)
    assert branches(root) == remote_branches(root) == ["genpipe/run-one"]


def test_a_lock_that_was_merged_is_not_published_again(root: Path) -> None:
    made = publish(root, "one").commit
    run(root, "git", "checkout", "-q", "--force", "main")
    run(root, "git", "clean", "-q", "--force", "artifacts/metrics", "dvc.lock")
    run(root, "git", "merge", "-q", made)
    run(root, "git", "push", "-q", "origin", "main", ":genpipe/run-one")
    run(root, "git", "branch", "-q", "-D", "genpipe/run-one")
    run(root, "git", "fetch", "-q", "--prune")
    again = publish(root, "two")
    assert (again.commit, again.remote, again.is_new) == (made, "origin", False)
    assert branches(root) == []


def test_a_second_run_of_the_same_name_gets_a_branch_of_its_own(root: Path) -> None:
    first = publish(root, "run")
    rerun(root, nice=2)
    second = publish(root, "run")
    assert second.branch == f"genpipe/run-run-{second.commit[:12]}"
    assert run(root, "git", "rev-parse", "genpipe/run-run").strip() == first.commit


def test_a_name_cannot_leave_its_folder(root: Path) -> None:
    assert publish(root, "../../heads/main; rm ~^:\n").branch == "genpipe/run-heads-main-rm"


def test_without_a_dvc_remote_the_branch_stays_here_and_that_is_said(root: Path) -> None:
    dvc(root, "remote", "remove", "-q", "store")
    commit_sources(root, "no store")
    published = publish(root, "run")
    assert (published.branch, published.remote) == ("genpipe/run-run", None)
    assert "DVC has no remote" in published.describe()
    assert remote_branches(root) == []
    assert branches(root) == ["genpipe/run-run"]
    assert publish(root, "again").branch == "genpipe/run-run"


def test_without_any_remote_the_branch_is_local(root: Path) -> None:
    dvc(root, "remote", "remove", "-q", "store")
    run(root, "git", "remote", "remove", "origin")
    commit_sources(root, "no remotes")
    published = publish(root, "run")
    assert (published.remote, published.is_new, published.notes) == (None, True, ())
    assert not publish(root, "again").is_new


def test_a_local_branch_is_pushed_once_there_is_somewhere_to_push(root: Path) -> None:
    run(root, "git", "remote", "remove", "origin")
    published = publish(root, "run")
    run(root, "git", "remote", "add", "origin", "../remote.git")
    later = publish(root, "later")
    assert (later.commit, later.branch, later.remote) == (published.commit, published.branch, "origin")
    assert remote_branches(root) == ["genpipe/run-run"]


def test_a_failed_dvc_push_leaves_no_branch_and_shows_no_password(root: Path) -> None:
    dvc(root, "remote", "modify", "-q", "store", "url", "http://ada:hunter2hunter2@127.0.0.1:1/store")
    commit_sources(root, "a store that is not there")
    with pytest.raises(
        PublishFailed, match=r"dvc push failed: .*the same command again publishes it"
    ) as caught:
        publish(root, "run")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert branches(root) == remote_branches(root) == []


def test_a_lock_whose_objects_are_missing_is_not_published(root: Path) -> None:
    """`dvc push` only warns of this, and ends with status 0."""
    lost = dvc_object(root, "artifacts/models/nice")
    lost.unlink()
    with pytest.raises(PublishFailed, match=r"no object of artifacts/models/nice"):
        publish(root, "run")
    dvc(root, "remote", "remove", "-q", "store")
    with pytest.raises(PublishFailed, match=r"no object of artifacts/models/nice"):
        publish(root, "run", allow_dirty=True)
    assert branches(root) == remote_branches(root) == []


def dvc_object(root: Path, path: str) -> Path:
    stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"].values()
    md5 = next(out["md5"] for stage in stages for out in stage["outs"] if out["path"] == path)
    return root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def test_a_remote_that_cannot_be_reached_keeps_the_branch_and_the_next_run_pushes_it(root: Path) -> None:
    url = "http://ada:hunter2hunter2@127.0.0.1:1/remote.git"
    run(root, "git", "remote", "set-url", "origin", url)
    with pytest.raises(PublishFailed, match=r"genpipe/run-run is not pushed") as caught:
        publish(root, "run")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    run(root, "git", "remote", "set-url", "origin", "../remote.git")
    assert is_outstanding(root, {})
    assert publish(root, "later").branch == "genpipe/run-run"
    assert remote_branches(root) == ["genpipe/run-run"]
    assert not is_outstanding(root, {})


def test_a_rejected_push_is_told_without_secrets_and_loses_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = root.parent / "remote.git/hooks/pre-receive"
    hook.write_text(
        "#!/bin/sh\necho 'only on Mondays, see https://ada:hunter2@127.0.0.1/ or tokentokentoken' >&2\nexit 1\n"
    )
    hook.chmod(0o755)
    monkeypatch.setenv("STORE_TOKEN", "tokentokentoken")
    told = r"genpipe/run-run is not pushed: .*only on Mondays, see https://\*\*\*@127\.0\.0\.1/ or \*\*\*;"
    with pytest.raises(PublishFailed, match=told):
        publish(root, "run")
    hook.unlink()
    assert publish(root, "later").branch == "genpipe/run-run"


def test_a_run_killed_between_dvc_push_and_git_push_is_published_by_the_next(root: Path) -> None:
    """The remote's hook holds the push until the process is killed."""
    hook = root.parent / "remote.git/hooks/pre-receive"
    hook.write_text(f"#!/bin/sh\ntouch {root.parent}/held\nsleep 600\n")
    hook.chmod(0o755)
    environment = {**as_somebody(), "PYTHONPATH": str(HERE)}
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISH], cwd=root, env=environment, start_new_session=True
    ) as process:
        wait_until((root.parent / "held").exists)
        os.killpg(process.pid, signal.SIGKILL)
    hook.unlink()
    assert remote_branches(root) == []
    assert is_outstanding(root, {})
    assert publish(root, "later").branch == "genpipe/run-run"
    assert is_complete(root, root.parent / "clone", "genpipe/run-run")


def marked(marker: str) -> list[int]:
    """The living processes that have `marker` in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if marker.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_publishing_that_is_killed_leaves_no_process(root: Path) -> None:
    """DVC's remote accepts the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(600)
        dvc(
            root,
            "remote",
            "modify",
            "-q",
            "store",
            "url",
            f"http://127.0.0.1:{silent.getsockname()[1]}/store",
        )
        commit_sources(root, "a store that does not answer")
        environment = {**as_somebody(), "PYTHONPATH": str(HERE), "MARK": str(root)}
        with (
            subprocess.Popen([sys.executable, "-c", PUBLISH], cwd=root, env=environment) as process,
            silent.accept()[0],
        ):
            assert len(marked(f"MARK={root}")) >= 3  # ours, the guard, dvc
            process.kill()
            wait_until(lambda: not marked(f"MARK={root}"))
    assert branches(root) == []


def test_two_clones_that_publish_at_once_both_get_their_branch(root: Path) -> None:
    other = root.parent / "other"
    shutil.copytree(root, other, symlinks=True)
    rerun(other, nice=3)
    environment = {**as_somebody(), "PYTHONPATH": str(HERE)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH], cwd=at, env=environment, stderr=subprocess.PIPE, text=True
        )
        for at in (root, other)
    ]
    assert [process.wait() for process in both] == [0, 0], [process.communicate() for process in both]
    first, second = remote_branches(root)
    assert (first, second.partition("run-run-")[0]) == ("genpipe/run-run", "genpipe/")


def test_a_dirty_tree_is_refused_before_anything_is_run(root: Path) -> None:
    require_clean(root, allow_dirty=False)  # what the run wrote is no dirt
    (root / "README.md").write_text("edited\n")
    with pytest.raises(
        BadState, match=r"uncommitted changes, and there are README.md; commit them, or add --allow-dirty"
    ):
        require_clean(root, allow_dirty=False)
    require_clean(root, allow_dirty=True)
    run(root, "git", "checkout", "-q", "README.md")
    (root / "notes.txt").write_text("untracked, and read by no stage\n")
    require_clean(root, allow_dirty=False)
    (root / "code/new.py").write_text("two = 2\n")
    with pytest.raises(BadState, match=r"and there are code/new.py"):
        require_clean(root, allow_dirty=False)


def test_code_that_changed_after_the_stages_ran_is_not_published_and_a_readme_does_not_matter(
    root: Path,
) -> None:
    (root / "README.md").write_text("edited while it ran\n")
    (root / "code/model.py").write_text("one = 2\n")
    with pytest.raises(BadState, match=r"uncommitted changes of code/model.py; commit them"):
        publish(root, "run")
    assert branches(root) == []
    run(root, "git", "checkout", "-q", "code/model.py")
    assert publish(root, "run").is_new


def test_uncommitted_changes_are_named_in_the_commit_when_they_are_allowed(root: Path) -> None:
    (root / "code/model.py").write_text("one = 2\n")
    dvc(root, "repro", "-q")
    published = publish(root, "run", allow_dirty=True)
    message = run(root, "git", "show", "--no-patch", "--format=%B", published.commit)
    assert "Made with uncommitted changes of code/model.py." in message


def test_new_raw_data_is_pinned_by_the_commit(root: Path) -> None:
    write_data(root, "4 5 6\n")
    dvc(root, "repro", "-q")
    require_clean(root, allow_dirty=False)
    published = publish(root, "run")
    assert "data.dvc" in run(root, "git", "diff", "--name-only", "HEAD", published.commit)
    assert is_complete(root, root.parent / "clone", "genpipe/run-run")


def move_main_on(root: Path, path: str, text: str) -> str:
    other = root.parent / "colleague"
    run(root.parent, "git", "clone", "-q", "remote.git", str(other))
    (other / path).write_text(text)
    made = commit_sources(other, f"change {path}")
    run(other, "git", "push", "-q", "origin", "main")
    return made


def test_a_run_is_rebased_on_a_main_that_moved_on_in_what_it_did_not_read(root: Path) -> None:
    main = move_main_on(root, "README.md", "a colleague's\n")
    published = publish(root, "run")
    assert run(root, "git", "rev-parse", f"{published.commit}^").strip() == main
    assert run(root, "git", "show", f"{published.commit}:README.md") == "a colleague's\n"
    assert (root / "README.md").read_text() == "a project\n"
    assert "rebased on the main branch of origin" in published.describe()


@pytest.mark.parametrize("path", ["code/model.py", "params.yaml", "dvc.lock"])
def test_a_run_is_not_rebased_on_a_main_that_changed_what_it_read_or_wrote(root: Path, path: str) -> None:
    """Its dvc.lock would then stand beside code that it was not made with."""
    head = run(root, "git", "rev-parse", "HEAD").strip()
    other = root.parent / "colleague"
    run(root.parent, "git", "clone", "-q", "remote.git", str(other))
    (other / path).write_text("# changed\n")
    run(other, "git", "add", "--all")
    run(other, "git", "commit", "-q", "-m", "change")
    run(other, "git", "push", "-q", "origin", "main")
    published = publish(root, "run")
    assert run(root, "git", "rev-parse", f"{published.commit}^").strip() == head
    assert f"has moved on in {path}, which this run used" in published.describe()
    assert remote_branches(root) == ["genpipe/run-run"]


def test_a_branch_that_went_another_way_is_published_as_it_is(root: Path) -> None:
    move_main_on(root, "README.md", "a colleague's\n")
    (root / "notes.txt").write_text("mine\n")
    mine = commit_sources(root, "mine")
    published = publish(root, "run")
    assert run(root, "git", "rev-parse", f"{published.commit}^").strip() == mine
    assert "have gone different ways" in published.describe()


def test_a_directory_without_commits_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadState, match="needs a Git repository with a commit"):
        require_clean(tmp_path, allow_dirty=False)
    run(tmp_path, "git", "init", "-q")
    with pytest.raises(BadState, match="needs a Git repository with a commit"):
        require_clean(tmp_path, allow_dirty=False)


def test_metrics_of_two_branches_can_be_compared(root: Path) -> None:
    first = publish(root, "one").commit
    rerun(root, nice=2)
    second = publish(root, "two").commit
    assert "bits_per_dim" in dvc(root, "metrics", "diff", first, second)


def test_what_git_keeps_comes_back_from_the_run_cache_like_other_outputs(root: Path) -> None:
    """Metrics are `cache: false`, which for other outputs would end the run-cache."""
    rerun(root, nice=2)
    changed = (root / "artifacts/metrics/nice.json").read_bytes()
    write_params(root)
    assert "Running stage" not in dvc(root, "repro")
    assert (root / "artifacts/metrics/nice.json").read_bytes() != changed
    assert lines(root, "git", "ls-files", "artifacts") == []
    assert tags(root) == []
