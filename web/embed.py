"""Writes the files of this folder as a C header: embed.py HEADER FILE...

They are served as they are, but scripts and styles without comments, a quarter of their size, and without indentation;
lines keep their numbers. To work on them edit, `script/server`, reload.
"""

import gzip
import hashlib
import re
import sys
from pathlib import Path

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

# All others are at /-/web/NAME.
PATHS = {
    "console.html": ["/"],
    "chat.html": ["/-/chat"],
    "icon.svg": ["/-/web/icon.svg", "/favicon.ico"],
    "robots.txt": ["/robots.txt"],
    "index.js": ["/-/web/longline.js"],  # clients/js
}


# Comments that have their lines to themselves, and what lines begin with: no text of ours goes over a line's end.
INDENTATION = re.compile(rb"^[ \t]+", re.MULTILINE)
COMMENT = re.compile(rb"^[ \t]*(?://.*|/\*(?:(?!\*/)[\s\S])*\*/[ \t]*)$", re.MULTILINE)


def served(file):
    plain = file.read_bytes()
    if file.suffix not in (".js", ".css"):
        return plain
    return INDENTATION.sub(b"", COMMENT.sub(lambda comment: b"\n" * comment[0].count(b"\n"), plain))


def write_asset(out, number, file):
    plain = served(file)
    compressed = gzip.compress(plain, 9, mtime=0)
    digest = hashlib.sha256(plain).hexdigest()[:16]
    for name, data in (("plain", plain), ("gzip", compressed)):
        out.write(f"static const unsigned char {name}_{number}[] = {{{','.join(map(str, data))}}};\n")
    slices = ", ".join(
        f"{{(const char *){name}_{number}, sizeof {name}_{number}}}" for name in ("plain", "gzip")
    )
    etags = f'SLICE("\\"{digest}\\""), SLICE("\\"{digest}-gzip\\"")'
    paths = PATHS.get(file.name, [f"/-/web/{file.name}"])
    return [f'{{SLICE("{path}"), "{TYPES[file.suffix]}", {slices}, {etags}}},\n' for path in paths]


def main():
    header, *files = map(Path, sys.argv[1:])
    with open(header, "w", encoding="ascii") as out:
        rows = [row for number, file in enumerate(files) for row in write_asset(out, number, file)]
        out.write(f"static const struct asset asset_files[] = {{\n{''.join(rows)}}};\n")


if __name__ == "__main__":
    main()
