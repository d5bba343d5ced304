"""Builds the package for pip. It needs nothing but Python, so pip installs it without a network.

A wheel is a zip of the files to install, and of what pip wants to know about them.
"""

import base64
import gzip
import hashlib
import io
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Dict, Optional

HERE = Path(__file__).parent
SOURCE_FILES = ["pyproject.toml", "backend.py", "README.md", "LICENSE"]


def build_wheel(folder: str, settings: Optional[dict] = None, metadata: Optional[str] = None) -> str:
    """Called by pip; returns the name of the wheel that it has written to the folder."""
    return write_wheel(folder, modules())


def build_editable(folder: str, settings: Optional[dict] = None, metadata: Optional[str] = None) -> str:
    """The same for `pip install --editable`: the wheel only says where the modules are."""
    return write_wheel(folder, {"longline.pth": str(HERE / "src").encode()})


def build_sdist(folder: str, settings: Optional[dict] = None) -> str:
    root = f"longline-{project('version')}"
    sources = {name: (HERE / name).read_bytes() for name in SOURCE_FILES}
    sources.update({f"src/{name}": data for name, data in modules().items()}, **{"PKG-INFO": core_metadata()})
    zipped = gzip.GzipFile(Path(folder) / f"{root}.tar.gz", "wb", mtime=0)  # of no time, as the wheel
    with zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for name, data in sources.items():
            info = tarfile.TarInfo(f"{root}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return f"{root}.tar.gz"


def modules() -> Dict[str, bytes]:
    files = sorted((HERE / "src/longline").iterdir())
    return {f"longline/{file.name}": file.read_bytes() for file in files if file.suffix in (".py", ".typed")}


def write_wheel(folder: str, files: Dict[str, bytes]) -> str:
    name = f"longline-{project('version')}"
    info = f"{name}.dist-info"
    told = "Wheel-Version: 1.0\nGenerator: longline\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {**files, f"{info}/METADATA": core_metadata(), f"{info}/WHEEL": told.encode()}
    files[f"{info}/LICENSE"] = (HERE / "LICENSE").read_bytes()
    record = [f"{path},sha256={digest(data)},{len(data)}" for path, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    wheel = f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder) / wheel, "w") as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path)  # of no time: the same files make the same wheel
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return wheel


def core_metadata() -> bytes:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {project('name')}",
        f"Version: {project('version')}",
        f"Summary: {project('description')}",
        f"Requires-Python: {project('requires-python')}",
        "License: MIT",
        "Description-Content-Type: text/markdown",
        "",
        (HERE / "README.md").read_text("utf-8"),
    ]
    return "\n".join(lines).encode()


def project(name: str) -> str:
    """A text of pyproject.toml. Python has a reader for it only since 3.11."""
    found = re.search(rf'^{name} = "(.*)"$', (HERE / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert found, name
    return found[1]


def digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
