"""Packages change in an order that their requirements allow, and together where none does."""

from collections.abc import Mapping, Sequence

from perfsuite.bisecting.installed_packages import InstalledPackages
from perfsuite.bisecting.package_order import package_steps


def environment(**packages: tuple[str, Sequence[str]]) -> InstalledPackages:
    named = {name.replace("_", "-"): about for name, about in packages.items()}
    return InstalledPackages(
        versions={name: version for name, (version, _) in named.items()},
        requires={name: requires for name, (_, requires) in named.items()},
    )


def steps(
    old: Mapping[str, tuple[str, Sequence[str]]], new: Mapping[str, tuple[str, Sequence[str]]]
) -> list[tuple[str, ...]]:
    changed = [name.replace("_", "-") for name in old if old[name][0] != new[name][0]]
    return package_steps(environment(**old), environment(**new), changed)


def world(torch: int, triton: str = "~=") -> dict[str, tuple[str, Sequence[str]]]:
    """Return what comes with a release of torch, as its metadata tell it."""
    return {
        "aside": (f"{torch}.0", ["jinja2", "torch>=1"]),
        "cuda_toolkit": (
            f"{torch}.1",
            [f"nvidia-blas=={torch}.2; extra == 'blas'", "nvidia-fft==1; extra == 'fft'"],
        ),
        "nvidia_blas": (f"{torch}.2", []),
        "nvidia_fft": (f"{torch}.3", []),
        "torch": (
            f"2.{torch}.0",
            [
                "Jinja2",
                f"cuda-toolkit[blas]=={torch}.1; platform_system != 'None'",
                f"nvidia-fft=={torch}.3; platform_system == 'None'",
                f"triton{triton}{torch}.0.0",
                "odd requirement !",
            ],
        ),
        "torchvision": (f"0.{torch}", [f"torch==2.{torch}.0"]),
        "triton": (f"{torch}.0.1", []),
    }


def test_what_is_pinned_is_one_step_with_what_pins_it_and_that_is_told_first() -> None:
    together = ("torchvision", "torch", "cuda-toolkit", "nvidia-blas", "triton")
    # The extra that pins nvidia-fft was not asked for, and the marker is of no machine.
    assert steps(world(3), world(4)) == [("aside",), ("nvidia-fft",), together]


def test_what_a_new_version_requires_is_new_before_it() -> None:
    old = {"alpha": ("1", ["zeta"]), "beta": ("1", []), "zeta": ("1", [])}
    new = {"alpha": ("2", ["zeta>=2"]), "beta": ("2", []), "zeta": ("2", ["beta>1"])}
    assert steps(old, new) == [("beta",), ("zeta",), ("alpha",)]


def test_what_an_old_version_requires_is_new_after_it() -> None:
    old = {"alpha": ("1", []), "zeta": ("1", ["alpha<2"])}
    new = {"alpha": ("2", []), "zeta": ("2", ["alpha"])}
    assert steps(old, new) == [("zeta",), ("alpha",)]


def test_versions_that_refuse_each_other_are_one_step() -> None:
    old = {"alpha": ("1", ["zeta<2"]), "zeta": ("1", [])}
    new = {"alpha": ("2", ["zeta>=2"]), "zeta": ("2", [])}
    assert steps(old, new) == [("alpha", "zeta")]


def test_metadata_of_one_end_alone_tell_what_is_pinned() -> None:
    known = {"alpha": ("1", []), "torch": ("1", ["alpha==2"])}
    assert steps(known, {"alpha": ("2", []), "torch": ("2", ["alpha==2"])}) == [("torch", "alpha")]


def test_a_version_that_is_none_refuses_nothing() -> None:
    new = {"alpha": ("2", ["odd>=3"]), "odd": ("3", [])}
    assert steps({"alpha": ("1", []), "odd": ("2.x-custom", [])}, new) == [("alpha",), ("odd",)]
