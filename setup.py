"""The kernels and the modules over them; everything else is in pyproject.toml.

csrc/ is one static library, each kernel compiled once; a module of stargz/_engine links those
that it calls. The kernels hold no global state, so one that two modules link is only code twice.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Command, Distribution, Extension, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

CORES = len(os.sched_getaffinity(0))
FLAGS = ["-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-pthread"]
SANITIZE = []
if sanitizers := os.environ.get("STARGZ_SANITIZE"):  # tests/sanitized sets it
    SANITIZE = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    FLAGS += [*SANITIZE, "-O1", "-g", "-fno-omit-frame-pointer"]
KERNELS = sorted(map(str, Path("csrc").glob("*/*.c")))
HEADERS = sorted(map(str, Path("csrc").glob("*/*.h")))
MODULES = sorted(path.stem for path in Path("stargz/_engine").glob("*.pyx"))
MANUAL = "share/man/man1"


class BuildKernels(build_clib):
    """Compile on all cores: setuptools takes one file after the other."""

    def build_libraries(self, libraries):
        compile_some = self.compiler.compile

        def compile_all(sources, **options):
            with ThreadPoolExecutor(CORES) as pool:
                objects = pool.map(lambda source: compile_some([source], **options), sources)
                return [path for some in objects for path in some]

        self.compiler.compile = compile_all
        super().build_libraries(libraries)


class BuildModules(build_ext):
    """Strip what is installed; who builds in place, or with sanitizers, wants the symbols."""

    def build_extension(self, ext):
        if not (self.editable_mode or self.inplace or SANITIZE):
            ext.extra_link_args = [*ext.extra_link_args, "-Wl,-s"]
        super().build_extension(ext)


class Stargz(Distribution):
    """An editable installation asks for `has_data`, and would go without the manual."""

    has_data = Distribution.has_data_files


class InstallManual(Command):
    """The manual pages, which the parsers make; they need nothing that is compiled."""

    user_options = ()

    def initialize_options(self):
        self.install_dir = None

    def finalize_options(self):
        self.set_undefined_options("install", ("install_data", "install_dir"))

    def run(self):
        folder = Path(self.install_dir, MANUAL)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "stargz.cli._man", folder], check=True)

    def get_outputs(self):
        return sorted(map(str, Path(self.install_dir, MANUAL).glob("stargz*.1")))


if __name__ == "__main__":
    setup(
        distclass=Stargz,
        cmdclass={
            "build_clib": BuildKernels,
            "build_ext": BuildModules,
            "install_data": InstallManual,
        },
        data_files=[(MANUAL, [])],
        options={"build_ext": {"parallel": CORES}},
        libraries=[
            (
                "kernels",
                {
                    "sources": KERNELS,
                    "obj_deps": {"": HEADERS},
                    "include_dirs": ["csrc"],
                    "cflags": FLAGS,
                },
            )
        ],
        ext_modules=cythonize(
            [
                Extension(
                    f"stargz._engine.{name}",
                    [f"stargz/_engine/{name}.pyx"],
                    depends=[*KERNELS, *HEADERS],
                    include_dirs=["csrc"],
                    extra_compile_args=FLAGS,
                    extra_link_args=["-pthread", *SANITIZE],
                    libraries=["dl"],
                )
                for name in MODULES
            ],
            nthreads=CORES,
            compiler_directives={"language_level": 3, "embedsignature": True},
        ),
    )
