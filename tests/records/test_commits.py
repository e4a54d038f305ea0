"""The row of commits between two: by first parents, with what each touches."""

from pathlib import Path

import pytest
from projects import git_in

from perfsuite.records.commits import (
    CommitOfRow,
    commits_between,
    of_benchmark,
    which_commit,
    which_package,
)
from perfsuite.records.git import GitError, resolve


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    git_in(folder, "init", "--quiet", "--initial-branch=main")

    def commit(name: str, title: str) -> None:
        (folder / name).write_text(title, encoding="utf-8")
        git_in(folder, "add", "--all")
        git_in(folder, "commit", "--quiet", "--message", title)

    commit("a.py", "first")
    commit("a.py", "second")
    git_in(folder, "switch", "--quiet", "--create", "side", "HEAD^")
    commit("b.py", "aside")
    commit("ü b.txt", "aside too")
    git_in(folder, "switch", "--quiet", "main")
    git_in(folder, "merge", "--quiet", "--no-ff", "--message", "merged", "side")
    commit("README.md", "prose")
    return folder


def row(folder: Path, good: str, bad: str = "HEAD") -> list[CommitOfRow]:
    return commits_between(resolve(good, folder), resolve(bad, folder))


def test_a_merge_is_one_commit_with_all_that_it_brought(repository: Path) -> None:
    found = row(repository, "HEAD~3")
    assert [each.title for each in found] == ["second", "merged", "prose"]
    assert [each.touched for each in found] == [("a.py",), ("b.py", "ü b.txt"), ("README.md",)]
    assert [each.merge_of is not None for each in found] == [False, True, False]
    assert found[1].told == f"{found[1].hash[:12]} merged"
    inside = found[1].merge_of
    assert inside is not None
    assert [each.title for each in row(repository, "HEAD~3", inside.split()[1])] == [
        "aside",
        "aside too",
    ]


def test_a_title_of_other_bytes_can_be_written(tmp_path: Path) -> None:
    git_in(tmp_path, "init", "--quiet")
    git_in(tmp_path, "commit", "--quiet", "--allow-empty", "--message=first")
    title = tmp_path / "title"
    title.write_bytes(b"gr\xfcn")
    # In an encoding that git does not know, and so does not recode.
    named = ("-c", "i18n.commitEncoding=unknown")
    git_in(tmp_path, *named, "commit", "--quiet", "--allow-empty", f"--file={title}")
    assert row(tmp_path, "HEAD^")[0].title.encode() == b"gr?n"


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("HEAD", "main", "are the same commit"),
        ("HEAD", "HEAD~1", "name the older one first"),
        ("side", "HEAD~2", "is no ancestor of .*: try [0-9a-f]{12}, from which both are"),
        ("side", "HEAD", "is on a branch that was merged into .*: try [0-9a-f]{12}, from which"),
    ],
)
def test_what_is_no_row_is_refused_in_one_line(
    repository: Path, good: str, bad: str, message: str
) -> None:
    with pytest.raises(GitError, match=message) as raised:
        row(repository, good, bad)
    if " try " in str(raised.value):
        fork = str(raised.value).partition(" try ")[2][:12]
        assert row(repository, fork, bad)[0].parents[0].startswith(fork)


def test_a_shallow_clone_is_told_what_to_do(repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git_in(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", str(clone))
    git_in(clone, "fetch", "--quiet", "--depth=1", "origin", "side")
    told = "the clone is shallow: fetch it whole"
    with pytest.raises(GitError, match=f"no ancestor of .*: {told}"):
        row(clone, "FETCH_HEAD")
    lacking = resolve("HEAD~3", repository).commit
    with pytest.raises(GitError, match=f"{lacking}' is no commit, branch or tag of .*: {told}"):
        row(clone, lacking)


@pytest.mark.parametrize(
    ("touched", "may"),
    [
        (("net/a.py",), True),
        (("net/b.py", "README.md"), False),
        (("benchmarks/test_a.py", "benchmarks/data.bin"), False),
        (("net/weights.bin",), True),
        (("pyproject.toml",), True),
        (("conftest.py",), True),
        (("benchmarks/conftest.py",), False),
        ((), False),
    ],
)
def test_what_is_not_imported_changes_nothing(touched: tuple[str, ...], may: bool) -> None:
    commit = CommitOfRow(hash="0" * 40, title="", parents=(), touched=touched)
    assert commit.may_change({"net/a.py"}, "benchmarks") is may


def test_the_command_that_finds_which_is_told_where_several_may_be_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, key = repository / "benchmarks", "test_speed.py::TestIt::test_step[fp32]"
    suite.mkdir(exist_ok=True)
    monkeypatch.chdir(repository)
    first = resolve("HEAD~3", repository).commit
    asked = " benchmarks/test_speed.py -k 'test_step[fp32]'"
    assert of_benchmark(key, suite, 1, "") == asked
    assert of_benchmark(key, suite, 2, "a loss") == f"{asked} --figure 'a loss' --perf-ranks 2"
    told = f"which commit: perfsuite bisect {first[:12]}{asked}"
    assert which_commit(first, asked, suite) == [told]
    assert which_commit(resolve("HEAD~1", repository).commit, asked, suite) == []
    other = of_benchmark(key, repository / "other", 1, "")
    assert which_package("/a b/python", other) == [
        "which package: perfsuite bisect --packages '/a b/python' other/test_speed.py"
        " --suite other -k 'test_step[fp32]'"
    ]


def test_no_command_is_told_where_the_suite_alone_was_changed(
    repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "clone"
    git_in(tmp_path, "clone", "--quiet", str(repository), str(folder))
    first, suite = resolve("HEAD", folder).commit, folder / "benchmarks"
    suite.mkdir()
    for number in range(2):
        for path in (suite / "conftest.py", folder / "README.md"):
            path.write_text(f"# {number}\n", encoding="utf-8")
        git_in(folder, "add", "--all")
        git_in(folder, "commit", "--quiet", "--message=the suite and prose")
    assert which_commit(first, "", suite) == []
    (folder / "a.py").write_text("third", encoding="utf-8")
    git_in(folder, "commit", "--quiet", "--all", "--message=code")
    assert which_commit(first, "", suite) == [f"which commit: perfsuite bisect {first[:12]}"]
