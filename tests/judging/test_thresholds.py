"""thresholds.toml: overlays, and one clear line for each error."""

from pathlib import Path

import pytest

from perfsuite.judging.thresholds import ThresholdsError, load_thresholds

SUITE = Path(__file__).parents[2] / "benchmarks" / "thresholds.toml"

DEFAULTS = """
[defaults.convergence]
margin = 0.03
max_skipped = 0.02
min_scale = 1024.0
max_scale = 16777216.0
[defaults.compare]
margin = 0.05
assumed_spread = 0.02
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "thresholds.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("hardware", ["nvidia-h200-x1-140gib", "cpu-amd-epyc-x2", "unheard-of"])
def test_the_suite_has_thresholds_for_every_hardware(hardware: str) -> None:
    found = load_thresholds(SUITE, hardware)
    assert 0 < found.convergence.margin <= 0.03
    assert (found.amp_speedup.minimum("fp16", "fp32") is None) is not hardware.startswith("nvidia")


def test_ranks_that_share_a_cpu_have_a_wider_margin_between_two_trees(tmp_path: Path) -> None:
    keys = ("cpu-amd-epyc-x2", "cpu-amd-epyc-x2-ranks-1x2", "nvidia-h200-x2-ranks-1x2")
    found = [load_thresholds(tmp_path / "none.toml", key).against.margin for key in keys]
    assert found == [0.05, 0.2, 0.01]


@pytest.mark.parametrize(
    "pattern", ["tesla-t4-x2-15gib", "tesla-*", "nvidia-*", "nvidia-tesla-t4-*"]
)
def test_tables_for_a_key_of_an_earlier_perfsuite_still_match(tmp_path: Path, pattern: str) -> None:
    path = write(tmp_path, DEFAULTS + f'[hardware."{pattern}".compare]\nmargin = 0.1\n')
    assert load_thresholds(path, "nvidia-tesla-t4-x1-16gib").compare.margin == 0.1
    assert load_thresholds(path, "cpu-tesla-t4").compare.margin == 0.05


def test_tables_that_match_overlay_in_order(tmp_path: Path) -> None:
    text = DEFAULTS + (
        '[hardware."gpu-*".compare]\nmargin = 0.1\n'
        '[hardware."gpu-b"]\nwarn = ["compare"]\ncompare.margin = 0.2\n'
    )
    path = write(tmp_path, text)
    assert load_thresholds(path, "cpu").compare.margin == 0.05
    assert load_thresholds(path, "gpu-a").compare.margin == 0.1
    both = load_thresholds(path, "gpu-b")
    assert (both.compare.margin, both.compare.assumed_spread, both.warn) == (
        0.2,
        0.02,
        ("compare",),
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[defaults", "cannot be read"),
        ("[default]\n", "unknown table [default]"),
        ("defaults = 3\n", "[defaults] must be a table"),
        (DEFAULTS + "[defaults.memory]\nmax_actvation_ratio = 1.0\n", "max_actvation_ratio"),
        (DEFAULTS + "[defaults.memory]\nmax_peak_ratio = -1.0\n", "max_peak_ratio"),
        (DEFAULTS + "[defaults.memory]\nmax_peak_ratio = 0\n", "max_peak_ratio"),
        (DEFAULTS + "[defaults.memory]\nmax_peak_ratio = nan\n", "max_peak_ratio = nan"),
        (DEFAULTS + "[defaults.memory]\nmax_peak_ratio = inf\n", "max_peak_ratio = inf"),
        (DEFAULTS + '[defaults.memory]\nmax_peak_ratio = "1"\n', "max_peak_ratio"),
        (DEFAULTS + "[defaults.amp_speedup]\nmin.fp8-vs-fp32 = 1.0\n", "fp8-vs-fp32"),
        (DEFAULTS + "[defaults.amp_speedup]\nconfidence = 99\n", "confidence"),
        (DEFAULTS + "[defaults.loader]\nconfidence = 0.997\n", "confidence"),
        (
            DEFAULTS.replace("[defaults.convergence]\n", "[defaults.convergence]\nalpha = 0.3\n"),
            "alpha",
        ),
        (DEFAULTS + "[defaults.compare]\nmargin = 0.1\n", "cannot be read"),
        ('[defaults]\nwarn = ["amp_sped"]\n' + DEFAULTS, "amp_sped"),
        (DEFAULTS.replace("1024.0", "2e9"), "min_scale must not be above max_scale"),
        # A table of other hardware is checked too: its errors must not wait for that hardware.
        (DEFAULTS + '[hardware."gpu".compare]\nmargni = 1.0\n', "margni"),
        (DEFAULTS + "[hardware]\ngpu = 1\n", '[hardware."gpu"] must be a table'),
    ],
)
def test_an_error_in_the_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ThresholdsError) as caught:
        load_thresholds(path, "cpu")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert named in message
    assert "\n" not in message


def test_what_no_file_says_is_built_in(tmp_path: Path) -> None:
    nothing = load_thresholds(tmp_path / "thresholds.toml", "cpu-of-any-kind")
    assert nothing == load_thresholds(write(tmp_path, ""), "cpu-of-any-kind")
    assert nothing.compare.margin == 0.25


def test_a_suite_s_own_defaults_go_before_built_in_ones_of_the_hardware(tmp_path: Path) -> None:
    path = write(tmp_path, "[defaults.compare]\nmargin = 0.1\n")
    found = load_thresholds(path, "cpu-of-any-kind")
    assert (found.compare.margin, found.compare.assumed_spread) == (0.1, 0.1)
