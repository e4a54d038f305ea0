"""The examples as their users have them: installed from the wheel, green, and red when broken."""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from projects import Result, git_in

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = [pytest.mark.examples, pytest.mark.slow]


@dataclass(frozen=True)
class Fault:
    """One line of an example, what a bug makes of it, and what is then red."""

    line: str
    broken: str
    found: str  # in the line of a verdict that is FAIL
    benchmark: str = "amp_probes and bf16"


FAULTS = {
    "image_classifier": Fault(
        "self.scaler.scale(loss).backward()",
        "with torch.autocast(self.device.type, self.dtype): loss.backward()",
        "probe autocast_in_backward",
    ),
    "small_gpt": Fault("enabled=self.dtype is not None)", "enabled=False)", "probe layer_dtypes"),
    "gan": Fault("self.optimizer_g.zero_grad()", "pass", "probe fresh_gradients"),
    "hf_trainer": Fault(
        "return Trainer(tiny_bert(),",
        "return Trainer(tiny_bert().to(torch.bfloat16),",
        "probe layer_dtypes",
    ),
    "accelerated": Fault("self.optimizer.zero_grad()", "pass", "probe fresh_gradients"),
    "lightning_autoencoder": Fault(
        "loss = nn.functional.mse_loss(self.decoder(self.encoder(wave)), wave)",
        "loss = nn.functional.mse_loss(self.decoder(self.encoder(wave)), wave).to(torch.bfloat16)",
        "probe loss_dtype",
    ),
}
NEEDS = {
    "hf_trainer": "transformers",
    "accelerated": "accelerate",
    "lightning_autoencoder": "lightning",
}  # example: the library without which it is skipped


# Plugins of this environment that an example's own would not have.
ALONE = ("-pno:hypothesispytest", "-pno:anyio", "-pno:xdist", "-pno:pytest_cov")
BRIEFLY = ("--perf-device=cpu", "--perf-budget=0.1")


def test_every_example_is_tested() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/pyproject.toml")} == set(FAULTS)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return a Python with the wheel of perfsuite; all else is that of this environment.

    It is made once, by whichever worker of the session comes first.
    """
    base = tmp_path_factory.getbasetemp()
    home = (base if worker_id == "master" else base.parent) / "installed"
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "done").exists():
            _install(home)
            (home / "done").touch()
    return home / "venv" / "bin" / "python"


def _install(home: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(home), "."]
    subprocess.run(build, cwd=ROOT, check=True)
    (wheel,) = home.glob("perfsuite-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True)
    paths = {"base": str(home / "venv"), "platbase": str(home / "venv")}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    into = ["--quiet", "--no-deps", "--no-index", "--target", str(packages)]
    subprocess.run([*pip, "install", *into, str(wheel)], check=True)
    # After the wheel's own folder, so that an editable install here is not found first.
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")


@dataclass(frozen=True)
class Example:
    """A copy of an example, and the Python that runs its suite."""

    folder: Path
    python: Path

    def run(self, *arguments: str) -> Result:
        """Run its suite from its own folder, with short timings."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GIT"))}
        done = subprocess.run(
            [self.python, "-m", "pytest", *ALONE, *BRIEFLY, *arguments],
            cwd=self.folder,
            env=inherited | {"COLUMNS": "300"},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Result(done.returncode, done.stdout)

    def rewrite(self, line: str, other: str) -> None:
        """Replace a part of a line that occurs once in its sources."""
        files = [path for path in self.folder.glob("src/**/*.py") if line in path.read_text()]
        (path,) = files
        text = path.read_text(encoding="utf-8")
        assert text.count(line) == 1
        path.write_text(text.replace(line, other), encoding="utf-8")


@pytest.fixture
def example(request: pytest.FixtureRequest, installed: Path, tmp_path: Path) -> Example:
    library = NEEDS.get(request.param)
    if library is not None and find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    folder = tmp_path / request.param
    unwanted = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(EXAMPLES / request.param, folder, ignore=unwanted)
    return Example(folder, installed)


@pytest.mark.parametrize("example", ["gan"], indirect=True)
def test_it_is_compared_with_the_commit_before(example: Example) -> None:
    for arguments in (("init",), ("add", "--all"), ("commit", "--message=as it is")):
        git_in(example.folder, *arguments)
    line = "on_real = self.discriminator(real)"
    example.rewrite(line, f"self.keeps = self.discriminator(real); {line}")
    chosen = "amp_memory or amp_convergence or (step_time and fp32)"
    found = example.run("--perf-against=HEAD", "-k", chosen)
    found.ends_with(1)
    table = found.part("verdict ", "= short test summary info =")
    table.line("MORE", "amp_memory[bf16] activation_bytes_per_sample")
    table.line("counted")
    # It keeps more, and learns the same.
    table.line("SAME", "amp_convergence[bf16] reference mean_loss")
    table.line("SAME", "amp_convergence[bf16] candidate mean_loss")
    # The time of a step is compared, too, and may be what the machine lets it be.
    table.line("step_time[fp32] step_s", " ms -> ")


@pytest.mark.parametrize("example", FAULTS, indirect=True)
def test_it_is_green_as_it_is(example: Example) -> None:
    found = example.run()
    found.ends_with(0)
    found.line("PASS", "amp_probes[bf16]", "probe all")
    found.line("PASS", "amp_convergence[bf16]", "mean_loss")


@pytest.mark.parametrize("example", FAULTS, indirect=True)
def test_it_is_red_with_a_bug(example: Example) -> None:
    fault = FAULTS[example.folder.name]
    example.rewrite(fault.line, fault.broken)
    found = example.run("-k", fault.benchmark)
    found.ends_with(1)
    assert fault.found in found.part("= FAILURES =", "= perfsuite =").out, found.out


@pytest.mark.parametrize(
    ("example", "choice"),
    [("small_gpt", "COMPILED"), ("lightning_autoencoder", "MANUAL")],
    indirect=["example"],
)
def test_its_other_form_is_green_too(
    example: Example, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(choice, "1")
    found = example.run("-k", "amp_probes and bf16")
    found.ends_with(0)
    found.line("PASS", "amp_probes[bf16]", "probe all")
