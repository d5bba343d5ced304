#!/usr/bin/env python3
"""Prints the SBOM of a release build, SPDX 2.3 in JSON, from what dpkg knows of the files that the linker took.

    sbom.py DIRECTORY NAME EPOCH FILES...

DIRECTORY is that of packaging/release/build, with `longline` and `linked` in it; NAME is the file's name in the
release, EPOCH the time of the commit. The lists FILES have a line for each file of the unpacked packages: its path,
package, version, source and architecture.

    sbom.py --licences DIRECTORY SYSROOT FILES...

prints the licences of the same packages, as their authors demand of whoever passes on a binary.
"""
import datetime
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import urllib.parse

# What SPDX calls the licence of the code that we link in; Debian's copyright files have no such names. A library that
# is new here must be added by hand.
LICENCES = {
    "gcc-12": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "gcc-12-cross": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "glibc": "LGPL-2.1-or-later",  # its startup code has the exception that lets anybody link it
    "hiredis": "BSD-3-Clause",
    "libsodium": "ISC",
    "liburing": "MIT OR LGPL-2.1-or-later",
    "libuv1": "MIT",
    "node-undici": "MIT",
    "openssl": "Apache-2.0",
    "sqlite3": "blessing",
    "xxhash": "BSD-2-Clause",
    "zlib": "Zlib",
}
FIELDS = "${Package} ${Version} ${source:Package} ${Architecture}"


def owner(path, listed):
    """(package, version, source, architecture) of a file."""
    if path in listed:
        return listed[path]
    if path == "libllhttp.a":  # compiled here, of the package's C sources
        package = "node-llhttp"
    else:
        package = subprocess.check_output(["dpkg", "-S", path], text=True).split(": ")[0]
    return tuple(subprocess.check_output(["dpkg-query", "-W", "-f", FIELDS, package], text=True).split(" "))


def packages(directory, lists):
    listed = {}
    for name in lists:
        for line in pathlib.Path(name).read_text().splitlines():
            path, *package = line.rsplit(" ", 4)
            listed[path] = tuple(package)
    paths = (directory / "linked").read_text().splitlines()
    found = {}
    for path in paths:
        real = str(pathlib.Path(path).resolve()) if path.startswith("/") else path
        found.setdefault(owner(real if real in listed or path not in listed else path, listed), []).append(path)
    return dict(sorted(found.items()))


def described(package, version, source, architecture):
    return {
        "SPDXID": f"SPDXRef-Package-{package}",
        "name": package,
        "versionInfo": version,
        "supplier": "Organization: Debian",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": LICENCES[source],
        "copyrightText": "NOASSERTION",
        "sourceInfo": f"linked in from Debian's package {package}, whose source is {source}",
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": f"pkg:deb/debian/{package}@{urllib.parse.quote(version, safe='')}"
                f"?arch={architecture}&upstream={source}",
            }
        ],
    }


def document(directory, name, epoch, lists):
    binary = (directory / "longline").read_bytes()
    sha256 = hashlib.sha256(binary).hexdigest()
    version = re.search(r"version: '([^']*)'", (directory / "meson.build").read_text()).group(1)
    linked = [described(*package) for package in packages(directory, lists)]
    own = {
        "SPDXID": "SPDXRef-Package-longline",
        "name": "longline",
        "versionInfo": version,
        "packageFileName": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "MIT",
        "copyrightText": "NOASSERTION",
        "checksums": [{"algorithm": "SHA256", "checksumValue": sha256}],
        "primaryPackagePurpose": "APPLICATION",
    }
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", own["SPDXID"])]
    relations += [(package["SPDXID"], "STATIC_LINK", own["SPDXID"]) for package in linked]
    relations = [
        {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other} for one, kind, other in relations
    ]
    created = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{version}-{sha256}",
        "creationInfo": {
            "created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: longline packaging/release/sbom.py"],
        },
        "packages": [own] + linked,
        "relationships": relations,
    }


def licences(directory, sysroot, lists):
    print((directory / "LICENSE").read_text())
    for package, version, source, _ in packages(directory, lists):
        roots = (sysroot, pathlib.Path("/"))
        files = [root / "usr/share/doc" / package / "copyright" for root in roots]
        text = next(file for file in files if file.exists()).read_text()
        print(f"{'=' * 78}\n{package} {version} (Debian's source {source})\n{'=' * 78}\n{text}")


if __name__ == "__main__":
    if sys.argv[1] == "--licences":
        licences(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4:])
    else:
        made = document(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
        print(json.dumps(made, indent=2))
