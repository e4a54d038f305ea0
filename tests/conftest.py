"""What every test may need."""

import pytest
import torch

pytest_plugins = ["pytester"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip CUDA tests where there is no GPU, and say why."""
    if torch.cuda.is_available():
        return
    why = "built without CUDA" if torch.version.cuda is None else "sees no GPU"
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason=f"needs a CUDA device: this torch {why}"))
