"""What the build does against those who get into the process, read off the program; docs: SECURITY.md."""

import platform
import struct
import subprocess

import pytest

from hardening import PF_R, PF_W, PF_X, PT_LOAD, SOME, lacks
from longline_server import BINARY, REPOSITORY, SLOW

# Something for each kind of protection to take hold of. Each function is an entry.
PROGRAM = """
#include <string.h>
int main(int argc, char **argv) {
    char small[64], large[1 << 16];
    volatile char *at = large;
    at[argc] = 1;
    strcpy(small, argv[0]);
    return small[argc] + at[1];
}
""" + "".join(f"int f{i}(int n) {{ return n + {i}; }}\n" for i in range(SOME))

HARDENED = (
    "-O2 -fstack-protector-strong -fstack-clash-protection -fcf-protection -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 "
    "-fPIE -pie -Wl,-z,relro,-z,now,-z,noexecstack"
)

# What the last flag takes away.
WITHOUT = {
    "-fno-pie -no-pie": "a position of its own (PIE)",
    "-Wl,-z,norelro": "a table of functions that is read-only (RELRO)",
    "-Wl,-z,lazy": "functions that are bound at the start (BIND_NOW)",
    "-Wl,-z,execstack": "a stack without code",
    "-fno-pie -mcmodel=large -Wl,-z,notext": "code that is never written (TEXTREL)",
    "-Wl,-rpath,/tmp": "only the system's libraries (RPATH)",
    "-fno-stack-protector": "the stack protector",
    "-U_FORTIFY_SOURCE": "the checks of FORTIFY",
    "-fno-stack-clash-protection": "the probes of large frames",
    "-fcf-protection=none": "protected jumps",
}


def test_the_build_is_hardened():
    """Sanitizers hinder some of it: beside their build, it is the release build's."""
    assert lacks(REPOSITORY / "build/longline" if SLOW else BINARY) == []


# The flags below are those of one machine.
of_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="its compiler has other flags")


def build(directory, flags=""):
    (directory / "program.c").write_text(PROGRAM)
    command = f"gcc {HARDENED} {flags} program.c -o program"
    subprocess.run(command.split(), cwd=directory, check=True, capture_output=True)
    return directory / "program"


@of_x86_64
def test_nothing_is_found_where_nothing_lacks(tmp_path):
    assert lacks(build(tmp_path)) == []


@of_x86_64
@pytest.mark.parametrize("flags", WITHOUT)
def test_what_is_lacking_is_found(tmp_path, flags):
    assert WITHOUT[flags] in lacks(build(tmp_path, flags))


@of_x86_64
def test_code_that_can_be_written_is_found(tmp_path):
    program = build(tmp_path)
    image = bytearray(program.read_bytes())
    flags_at = next(at for at in range(64, 1024, 56) if image[at : at + 8] == struct.pack("<II", PT_LOAD, PF_R | PF_X)) + 4
    image[flags_at] |= PF_W
    program.write_bytes(image)
    assert lacks(program) == ["memory that has code or can be written, never both"]
