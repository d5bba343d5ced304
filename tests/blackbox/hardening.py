"""Reads off a program what its build did against those who get into it: `hardening.py FILE…` prints what is lacking."""

import struct
import sys
from pathlib import Path

X86_64, ARM64 = 62, 183
PT_LOAD, PT_DYNAMIC = 1, 2
PT_GNU_STACK, PT_GNU_RELRO = 0x6474E551, 0x6474E552
PF_X, PF_W, PF_R = 1, 2, 4
DT_TEXTREL, DT_RPATH, DT_RUNPATH, DT_FLAGS, DT_FLAGS_1 = 22, 15, 29, 30, 0x6FFFFFFB
DF_BIND_NOW, DF_1_PIE = 8, 0x8000000
SHT_DYNSYM = 11

# Where functions may be entered, and a page of a large frame is touched; the latter is rare on ARM, whose guard is 64 KiB.
ENTRIES = {X86_64: b"\xf3\x0f\x1e\xfa", ARM64: b"\x3f\x23\x03\xd5"}
PROBE = b"\x48\x83\x0c\x24\x00"
SOME = 100  # the start files have a few entries


class Elf:
    """A 64-bit program, little-endian."""

    def __init__(self, path):
        self.bytes = Path(path).read_bytes()
        assert self.bytes[:6] == b"\x7fELF\x02\x01", f"{path} is no such program"
        self.machine = self._unpack("<H", 18)[0]
        programs_at, sections_at = self._unpack("<QQ", 32)
        program_size, programs, section_size, sections = self._unpack("<4H", 54)
        self.segments = [self._unpack("<IIQQQQ", programs_at + i * program_size) for i in range(programs)]
        self._sections = [self._unpack("<IIQQQQII", sections_at + i * section_size) for i in range(sections)]

    def _unpack(self, form, at):
        return struct.unpack_from(form, self.bytes, at)

    def dynamic(self):
        """The entries of the dynamic section, by their tags."""
        found = {}
        for kind, _, at, _, _, size in self.segments:
            if kind == PT_DYNAMIC:
                found.update(self._unpack("<QQ", at + i) for i in range(0, size, 16))
        return found

    def imports(self):
        """What it wants of its libraries."""
        names = set()
        for _, kind, _, _, at, size, link, _ in self._sections:
            for i in range(0, size if kind == SHT_DYNSYM else 0, 24):
                name_at, _, _, defined_in = self._unpack("<IBBH", at + i)
                start = self._sections[link][4] + name_at
                if defined_in == 0:
                    names.add(self.bytes[start : self.bytes.index(b"\0", start)].decode())
        return names

    def code(self):
        return b"".join(self.bytes[at : at + size] for kind, flags, at, _, _, size in self.segments if kind == PT_LOAD and flags & PF_X)


def lacks(path):
    """What the program lacks, a line each."""
    elf = Elf(path)
    kinds = {kind: flags for kind, flags, *_ in elf.segments}
    dynamic, imports, code = elf.dynamic(), elf.imports(), elf.code()
    fortified = {name for name in imports if name.startswith("__") and name.endswith("_chk")}
    wanted = {
        "a position of its own (PIE)": dynamic.get(DT_FLAGS_1, 0) & DF_1_PIE,
        "a table of functions that is read-only (RELRO)": PT_GNU_RELRO in kinds,
        "functions that are bound at the start (BIND_NOW)": dynamic.get(DT_FLAGS, 0) & DF_BIND_NOW,
        "a stack without code": PT_GNU_STACK in kinds and not kinds[PT_GNU_STACK] & PF_X,
        "memory that has code or can be written, never both": not any(
            kind == PT_LOAD and flags & PF_X and flags & PF_W for kind, flags, *_ in elf.segments
        ),
        "code that is never written (TEXTREL)": DT_TEXTREL not in dynamic,
        "only the system's libraries (RPATH)": DT_RPATH not in dynamic and DT_RUNPATH not in dynamic,
        "the stack protector": "__stack_chk_fail" in imports,
        "the checks of FORTIFY": fortified,
        "the probes of large frames": PROBE in code or elf.machine != X86_64,
        "protected jumps": code.count(ENTRIES[elf.machine]) >= SOME,
    }
    return [what for what, has in wanted.items() if not has]


if __name__ == "__main__":
    lacking = {path: lacks(path) for path in sys.argv[1:]}
    for path, lines in lacking.items():
        print(*(f"{path} lacks {line}" for line in lines), sep="\n", end="\n" if lines else "")
    sys.exit(any(lacking.values()))
