"""Finding the codec libraries: what is tried, what is refused, and what the error says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from absence import absent

CONVERT = (
    "import io, stargz, sys, tarfile\n"
    "data = io.BytesIO(); tarfile.open(fileobj=data, mode='w').close(); data.seek(0)\n"
    "print(stargz.convert(data, io.BytesIO(), level={level}).codec)\n"
)

# Libraries that have every symbol of ISA-L, and one thing wrong with each.
FAKE = """
#include <stdint.h>
#include <string.h>
typedef struct { uint8_t *next_in; uint32_t avail_in, total_in; uint8_t *next_out;
                 uint32_t avail_out, total_out; } stream;
void isal_deflate_init(stream *z) { memset(z, 0, SIZE); }
void isal_deflate_reset(stream *z) { (void)z; }
int isal_deflate(stream *z)
{
    z->total_in = z->avail_in;
    z->avail_in = 0;
    z->total_out = 100;
    z->avail_out -= 100;
    return 0;
}
void isal_inflate_init(void *s) { (void)s; }
void isal_inflate_reset(void *s) { (void)s; }
int isal_inflate(void *s) { (void)s; return 0; }
uint32_t crc32_gzip_refl(uint32_t seed, const uint8_t *data, uint64_t len)
{
    (void)seed, (void)data, (void)len;
    return 0xCBF43926u;
}
"""

# Another ISA-L as it is, but for what tests change: such as that it drops the bits it holds behind
# a last block (4).
FORGETFUL = """
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>
static void *isal(const char *name)
{
    return dlsym(dlopen("REAL", RTLD_NOW), name);
}
#define PASS(name) void name(void *p) { ((void (*)(void *))isal(#name))(p); }
PASS(isal_deflate_init)
PASS(isal_deflate_reset)
PASS(isal_inflate_init)
PASS(isal_inflate_reset)
int isal_deflate(void *z) { return ((int (*)(void *))isal("isal_deflate"))(z); }
int isal_inflate_set_dict(void *s, uint8_t *dict, uint32_t len)
{
    return ((int (*)(void *, uint8_t *, uint32_t))isal("isal_inflate_set_dict"))(s, dict, len);
}
int isal_inflate(uint8_t *s)
{
    int code = ((int (*)(void *))isal("isal_inflate"))(s);
    uint32_t block_state;
    memcpy(&block_state, s + 21160, 4);
    if (block_state == 9)
        memset(s + 36, 0, 4);
    return code;
}
uint32_t crc32_gzip_refl(uint32_t seed, const uint8_t *data, uint64_t len)
{
    return ((uint32_t (*)(uint32_t, const uint8_t *, uint64_t))isal("crc32_gzip_refl"))(seed, data,
                                                                                     len);
}
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def error_of(code: str, **environment: str) -> str:
    done = run(code, **environment)
    assert done.returncode == 1, done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("stargz.errors.CodecError: ")
    return last


def fake(tmp_path: Path, size: int, missing: str = "") -> str:
    source = FAKE.replace("SIZE", str(size))
    if missing:
        source = source.replace(missing, f"{missing}_gone")
    return library_of(tmp_path, source)


def library_of(tmp_path: Path, source: str) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        absent("a C compiler")
    (tmp_path / "fake.c").write_text(source)
    library = tmp_path / "fake.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "fake.c"], check=True)
    return str(library)


def test_each_library_can_be_loaded() -> None:
    code = (
        "from stargz._engine import base\n"
        "for name in ('isal', 'crypto', 'libdeflate', 'zstd'): base.need(name)\n"
        "assert base.isal_pinned()\n"
        "print(len(base.loaded()))"
    )
    assert run(code).stdout == "4\n"


@pytest.mark.parametrize(
    ("variable", "level"), [("STARGZ_ISAL", 1), ("STARGZ_LIBCRYPTO", 1), ("STARGZ_LIBDEFLATE", 6)]
)
def test_a_demand_that_fails_is_the_error(variable: str, level: int) -> None:
    message = error_of(CONVERT.format(level=level), **{variable: "/no/such/library.so"})
    assert f"{variable}=/no/such/library.so" in message
    assert "pip install" in message or "apt install" in message


def test_dense_levels_say_how_to_get_libdeflate_and_others_do_not_need_it() -> None:
    nowhere = {"STARGZ_LIBDEFLATE": "/nowhere"}
    message = error_of(CONVERT.format(level=3), **nowhere)
    assert "pip install deflate, or apt install libdeflate0" in message
    assert run(CONVERT.format(level=2), **nowhere).stdout == "isa-l\n"
    assert "libdeflate" in run(CONVERT.format(level=6)).stdout


def test_zstd_input_says_how_to_get_libzstd() -> None:
    code = "import io, stargz; stargz.convert(io.BytesIO(b'\\x28\\xb5\\x2f\\xfd'), io.BytesIO())"
    assert "pip install zstandard, or" in error_of(code, STARGZ_LIBZSTD="/nowhere")


def test_another_struct_layout_is_found_out(tmp_path: Path) -> None:
    library = fake(tmp_path, 82384 + 8)
    assert "another layout" in error_of(CONVERT.format(level=1), STARGZ_ISAL=library)


def test_a_library_that_does_not_compress_is_refused(tmp_path: Path) -> None:
    library = fake(tmp_path, 1000)
    assert "self-test" in error_of(CONVERT.format(level=1), STARGZ_ISAL=library)


def test_a_missing_symbol_is_named(tmp_path: Path) -> None:
    library = fake(tmp_path, 1000, missing="isal_inflate_reset")
    assert "has no symbol isal_inflate_reset" in error_of(
        CONVERT.format(level=1), STARGZ_ISAL=library
    )


@pytest.mark.parametrize(
    ("original", "changed"),
    [("isal_inflate_set_dict(void", "gone(void"), ("state == 9", "state == 4")],
)
def test_only_entry_points_need_what_stops_between_blocks(
    tmp_path: Path, original: str, changed: str
) -> None:
    real = run("from stargz._engine import base; base.need('isal'); print(*base.loaded().values())")
    source = FORGETFUL.replace("REAL", real.stdout.strip())
    index = (
        "import gzip, io; from stargz._engine import index\n"
        "index.build(io.BytesIO(gzip.compress(bytes(10240))).read, source_name='x', threads=1)"
    )
    assert run(index, STARGZ_ISAL=library_of(tmp_path, source)).returncode == 0
    library = library_of(tmp_path, source.replace(original, changed))
    assert run(CONVERT.format(level=1), STARGZ_ISAL=library).stdout == "isa-l\n"
    message = error_of(index, STARGZ_ISAL=library)
    assert "with this ISA-L no entry points can be found in gzip; use ISA-L 2.24" in message


def test_the_system_library_gives_the_same_bytes() -> None:
    """The wheel's ISA-L and Debian's are different releases."""
    code = (
        "import io, stargz, sys; sys.path.insert(0, sys.argv[1])\n"
        "import synthetic\n"
        "for level in (1, 2):\n"
        "    print(stargz.convert(io.BytesIO(synthetic.tar_bytes()), io.BytesIO(),"
        " level=level).digest)\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    ours = subprocess.run(command, capture_output=True, text=True, check=True)
    system = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"STARGZ_ISAL": "libisal.so.2"}
    )
    if "cannot open shared object" in system.stderr:
        absent("libisal.so.2 (apt install libisal2)")
    assert system.stdout == ours.stdout
    assert system.stdout.count("sha256:") == 2
