"""The wheel works where only its dependencies are installed."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

USE_THE_WHEEL = """
from importlib.resources import files
from importlib.util import find_spec

for package in ("torch", "skorch", "matplotlib", "pandas"):
    assert find_spec(package) is None, package

import numpy as np
import sklcomp
import sklcomp.recovery

assert "site-packages" in sklcomp.__file__
assert files("sklcomp").joinpath("py.typed").is_file()
assert find_spec("tests") is None

# Away from the border a plane has no second differences, so the hole disappears.
plane = np.add.outer(np.arange(8.0), np.arange(6.0))
holed = plane.copy()
holed[4, 3] = np.nan
filled = sklcomp.recovery.recover_image(holed, order=2, solver="direct")
np.testing.assert_allclose(filled, plane)
"""


def run(*command, cwd):
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def python_with_wheel(tmp_path):
    """Interpreter of a new environment that holds the wheel and no extras."""
    # Without -w the wheel is made from the sdist, not from an old build folder.
    run(sys.executable, "-m", "build", "-o", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("sklcomp-*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    run(python, "-m", "pip", "install", "-q", "-c", constraints, wheel, cwd=tmp_path)
    return python


def test_wheel_works_alone(python_with_wheel, tmp_path):
    run(python_with_wheel, "-W", "error", "-c", USE_THE_WHEEL, cwd=tmp_path)
