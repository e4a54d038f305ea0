"""In which order packages can change, and which of them only together: by what they require."""

from collections import defaultdict
from collections.abc import Collection, Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from perfsuite.bisecting.installed_packages import InstalledPackages

_PINS = ("==", "===", "~=")


def package_steps(
    old: InstalledPackages, new: InstalledPackages, changed: Collection[str]
) -> list[tuple[str, ...]]:
    """Return the packages that change from an old environment to a new one, step by step.

    What a package requires in its new version has changed before it does, and what it requires in
    its old one has not. Where that leaves no order, as between packages that pin each other, they
    are one step, of which that which requires the most is the first.
    """
    before: dict[str, set[str]] = {name: set() for name in changed}  # each, or at once with it
    requires: dict[str, set[str]] = {name: set() for name in changed}
    for packages, other in ((old, new), (new, old)):
        for name, needed, wanted in _requirements(packages):
            if name == needed or name not in before or needed not in before:
                continue
            requires[name].add(needed)
            if not _refuses(wanted, other.versions[needed]):
                continue
            # A file tells no metadata of its own: who pins another now is taken to have done so.
            pinned = any(each.operator in _PINS for each in wanted)
            if packages is new or pinned:
                before[name].add(needed)
            if packages is old or pinned:
                before[needed].add(name)
    for graph in (before, requires):
        _close(graph)
    steps = {
        tuple(
            sorted(
                {name, *(each for each in before[name] if name in before[each])},
                key=lambda each: (-len(requires[each]), each),
            )
        )
        for name in before
    }
    # What comes before another has fewer before it.
    return sorted(steps, key=lambda step: (len(before[step[0]] | {step[0]}), step))


def _requirements(packages: InstalledPackages) -> Iterator[tuple[str, str, SpecifierSet]]:
    """Yield what each package requires of which other, on this machine and with the extras asked.

    An extra counts as asked for where any package requires it of another.
    """
    asked: dict[str, set[str]] = defaultdict(set)
    parsed = []
    for name, texts in packages.requires.items():
        for text in texts:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:  # as old metadata have them
                continue
            needed = canonicalize_name(requirement.name)
            asked[needed] |= requirement.extras
            parsed.append((name, needed, requirement))
    for name, needed, requirement in parsed:
        marker = requirement.marker
        extras = ("", *sorted(asked[name]))
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            yield name, needed, requirement.specifier


def _refuses(wanted: SpecifierSet, version: str) -> bool:
    try:
        return not wanted.contains(Version(version), prereleases=True)
    except InvalidVersion:  # the resolver will say
        return False


def _close(graph: dict[str, set[str]]) -> None:
    """Let each lead to whatever it leads to in several moves."""
    for middle, further in graph.items():
        for reached in graph.values():
            if middle in reached:
                reached.update(further)
