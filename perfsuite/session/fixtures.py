"""Whether a test's fixture of some name is perfsuite's own: other projects have a ``perf`` too."""

from collections.abc import Mapping, Sequence
from typing import Any

_OURS = "perfsuite.plugin"


def uses(item: object, name: str = "perf") -> bool:
    """Tell whether a collected item reaches perfsuite's fixture `name`."""
    info = getattr(item, "_fixtureinfo", None)
    return info is not None and reaches(info.name2fixturedefs, name)


def reaches(definitions: Mapping[str, Sequence[Any]], name: str) -> bool:
    """Tell whether a fixture `name` is perfsuite's, or overrides it and asks for it."""
    for definition in reversed(definitions.get(name, ())):
        if definition.func.__module__ == _OURS:
            return True
        if name not in definition.argnames:
            return False
    return False
