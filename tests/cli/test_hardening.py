#!/usr/bin/python3
"""What the built program asks of the system, should a flaw in it be exploited; readelf tells."""
import re
import subprocess
import sys

from harness import Skip, main, need


def readelf(nibble, option, builds):
    """What readelf says of the program, where it is one of these builds."""
    if nibble.path.parent.name not in builds:
        raise Skip(f"only for builds {builds}")
    return subprocess.run([need("readelf"), "-W", option, nibble], capture_output=True, text=True,
                          check=True).stdout


def segments(nibble):
    """(type, flags) of each."""
    lines = readelf(nibble, "--segments", ("release", "debug"))
    return re.findall(r"^  ([A-Z_]+) +(?:0x\w+ +){5}([R ][W ][E ]) ", lines, re.M)


def imports(nibble, builds):
    """Names of the functions that other libraries give."""
    return set(re.findall(r" UND (\w+)", readelf(nibble, "--dyn-syms", builds)))


def test_it_loads_at_any_address(nibble):
    assert re.search(r"Type: +DYN ", readelf(nibble, "--file-header", ("release", "debug")))
    assert re.search(r"FLAGS_1.* PIE", readelf(nibble, "--dynamic", ("release", "debug")))


def test_tables_of_addresses_are_read_only(nibble):
    """All are bound before main, and none can be written after that."""
    assert ("GNU_RELRO", "R  ") in segments(nibble), segments(nibble)
    dynamic = readelf(nibble, "--dynamic", ("release", "debug"))
    assert re.search(r"FLAGS.* (BIND_NOW|NOW)\b", dynamic)


def test_nothing_is_both_written_and_run(nibble):
    found = segments(nibble)
    assert ("GNU_STACK", "RW ") in found and ("LOAD", "R E") in found, found
    assert not [flags for _, flags in found if "W" in flags and "E" in flags], found


def test_smashed_stacks_are_noticed(nibble):
    assert "__stack_chk_fail" in imports(nibble, ("release", "debug"))


def test_buffers_of_known_size_are_not_overrun(nibble):
    """Needs an optimizer that knows sizes."""
    names = imports(nibble, ("release",))
    assert {"__snprintf_chk", "__fprintf_chk", "__memcpy_chk"} <= names, names


if __name__ == "__main__":
    sys.exit(main(globals()))
