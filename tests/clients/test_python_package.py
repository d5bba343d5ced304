"""The Python client as a package: it is built and installed without a network, by Python alone."""

import base64
import csv
import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest
from longline_server import REPOSITORY

CLIENT = REPOSITORY / "clients/python"
MODULES = {f"longline/{path.name}" for path in (CLIENT / "src/longline").iterdir() if path.name != "__pycache__"}
SHOW = "import longline; print(longline.__file__, longline.__version__)"


@pytest.fixture(scope="module")
def backend():
    spec = importlib.util.spec_from_file_location("backend", CLIENT / "backend.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_wheel_has_the_modules_and_a_true_record(backend, tmp_path):
    name = backend.build_wheel(str(tmp_path))
    assert name == "longline-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(tmp_path / name) as wheel:
        for entry in wheel.infolist():
            assert entry.external_attr >> 16 == 0o644 and entry.compress_type == zipfile.ZIP_DEFLATED
        files = {path: wheel.read(path) for path in wheel.namelist()}
    info = "longline-0.1.0.dist-info/"
    assert set(files) == MODULES | {info + name for name in ("METADATA", "WHEEL", "LICENSE", "RECORD")}
    for path in MODULES:
        assert files[path] == (CLIENT / "src" / path).read_bytes()
    record = {path: (digest, size) for path, digest, size in csv.reader(io.StringIO(files[info + "RECORD"].decode()))}
    assert record.pop(info + "RECORD") == ("", "") and set(record) == set(files) - {info + "RECORD"}
    for path, (digest, size) in record.items():
        assert int(size) == len(files[path])
        assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(files[path]).digest()).decode().rstrip("=")
    metadata = files[info + "METADATA"].decode()
    assert "\nName: longline\nVersion: 0.1.0\n" in metadata and "\nRequires-Python: >=3.9\n" in metadata


def test_the_same_files_make_the_same_archives(backend, tmp_path, monkeypatch):
    built = set()
    for now in (1e9, 2e9):
        monkeypatch.setattr("time.time", lambda now=now: now)
        built.add(tuple((tmp_path / build(str(tmp_path))).read_bytes() for build in (backend.build_wheel, backend.build_sdist)))
    assert len(built) == 1


def test_a_wheel_can_be_built_from_the_source_archive(backend, tmp_path):
    with tarfile.open(tmp_path / backend.build_sdist(str(tmp_path))) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-c", "import backend, sys; print(backend.build_wheel(sys.argv[1]))", str(tmp_path)]
    built = subprocess.run(command, cwd=tmp_path / "longline-0.1.0", capture_output=True, text=True, check=True)
    environment = {"PYTHONPATH": str(tmp_path / built.stdout.strip())}
    shown = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == [f"{tmp_path}/{built.stdout.strip()}/longline/__init__.py", "0.1.0"]


HAS_VENV = subprocess.run(["/usr/bin/python3", "-c", "import ensurepip"], capture_output=True).returncode == 0


@pytest.mark.skipif(not HAS_VENV, reason="python3-venv is not installed")
@pytest.mark.parametrize("how", ["copy", "editable"])
def test_pip_installs_it_into_a_venv_without_a_network(tmp_path, how):
    # Whatever proxy or index the machine has: pip must ask none.
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}

    def run(*command):
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    run("/usr/bin/python3", "-m", "venv", str(tmp_path))
    run(str(tmp_path / "bin/pip"), "install", *(["--editable"] if how == "editable" else []), str(CLIENT))
    path, version = run(str(tmp_path / "bin/python"), "-c", SHOW).split()
    assert version == "0.1.0"
    assert path.startswith(str(tmp_path if how == "copy" else CLIENT / "src"))
