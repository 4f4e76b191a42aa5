"""Packaging, and the build of csrc/: megatron/device/triarch_ops.so, and two Python extensions beside what calls them.

`python setup.py build_ext --inplace` compiles what changed since the last build. The first library needs torch and no
Python headers: torch loads it by path. The extensions need no torch. Where one cannot be built one line says why and
the installation goes on without it; the same functions in plain torch, numpy or Python then do its work.
TRIARCH_NO_NATIVE=1 skips the build, CXX and NVCC name the compilers, TORCH_CUDA_ARCH_LIST (for example "8.0;9.0") the
GPUs; without it sm_80, sm_90 and sm_100 are built.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from setuptools import Extension, find_namespace_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
OPS = "megatron.device.triarch_ops"
CORRUPTION, PACKING = "megatron.objectives.corruption_native", "megatron.data.packing_native"

# Contraction into fused multiply-adds is wanted; nothing here may assume that NaN does not occur.
LOOP_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fopenmp-simd", "-ffp-contract=fast"]
LOOP_FLAGS += ["-fno-math-errno", "-fno-trapping-math"]  # both keep loops from being vectorised and change no result
TORCH_FLAGS = ["-std=c++20", "-O2", "-fPIC", "-fopenmp", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"]
# Sources that are compiled for each instruction set, and how they name what they export after it.
VECTOR_LOOPS = {
    "attention/softmax_rows.cpp": "Loops",
    "attention/attention_tiles.cpp": "Attention",
    "losses/exponential_rows.cpp": "Exponentials",
    "activations/activation_rows.cpp": "Activations",
    "norms/rms_norm_rows.cpp": "RmsNorms",
}
X86_LEVELS = {
    "Avx2": ["-mavx2", "-mfma"],
    "Avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
EXTENSION_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-fvisibility=hidden", "-Wall"]
EXTENSIONS = ("corruption", "packing")  # folders of csrc/ that make Python extensions
DEFAULT_CUDA_ARCHITECTURES = ("80", "90", "100")


class CannotBuild(Exception):
    """One sentence: why the native ops are not built."""


@dataclass(frozen=True)
class Unit:
    """One compiler call: a source, what calls the compiler, and a name for the object file."""

    source: Path
    command: tuple[str, ...]
    name: str

    def object_file(self, folder: Path, headers_digest: str) -> Path:
        """Named by what it is made from, so that an object is current exactly when it exists."""
        key = [headers_digest, self.source.read_text(), *self.command]
        return folder / f"{self.name}-{hashlib.sha256(chr(0).join(key).encode()).hexdigest()[:16]}.o"


class BuildNative(build_ext):
    """Builds all libraries, or says in one line why not."""

    def get_ext_filename(self, fullname: str) -> str:
        """The ops have no Python version in their name: they do not depend on it."""
        return fullname.replace(".", "/") + ".so" if fullname == OPS else super().get_ext_filename(fullname)

    def build_extensions(self) -> None:
        """Build each by itself; what all lack is said once."""
        try:
            self.cxx = find_compiler()
        except CannotBuild as reason:
            for ext in self.extensions:
                self._target(ext).unlink(missing_ok=True)
            print(
                f"native ops: not built: {reason} Plain torch and numpy will do the same work, more slowly.", flush=True
            )
            return
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        """Compile and link one of them."""
        name, instead, build = BUILDS[ext.name]
        target = self._target(ext)
        try:
            build(self.cxx, target)
        except CannotBuild as reason:
            target.unlink(missing_ok=True)  # one built from other sources must not be taken for it
            print(f"{name}: not built: {reason} {instead} will do the same work, more slowly.", flush=True)

    def copy_extensions_to_source(self) -> None:
        """Put the libraries beside the sources; where none was built, take away the one of an earlier build."""
        for ext in self.extensions:
            built, place = self._target(ext), ROOT / self.get_ext_filename(ext.name)
            if built.exists():
                unfinished = place.with_suffix(f".{os.getpid()}.tmp")
                shutil.copy2(built, unfinished)
                unfinished.replace(place)  # written in place it would crash every process that has it loaded
            else:
                place.unlink(missing_ok=True)

    def get_outputs(self) -> list[str]:
        """Only what exists: the build may have been skipped."""
        return [path for path in super().get_outputs() if Path(path).exists()]

    def _target(self, ext: Extension) -> Path:
        return (Path(self.build_lib) / self.get_ext_filename(ext.name)).resolve()


def find_compiler() -> str:
    """The C++ compiler. Raises CannotBuild."""
    if os.environ.get("TRIARCH_NO_NATIVE") == "1":
        raise CannotBuild("TRIARCH_NO_NATIVE=1 is set.")
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        raise CannotBuild("no C++ compiler was found (install g++, or name one in CXX).")
    return compiler


def build_ops(compiler: str, target: Path) -> None:
    """Bring the torch ops up to date with csrc/. Raises CannotBuild."""
    try:
        import torch
        from torch.utils.cpp_extension import include_paths
    except ImportError:
        raise CannotBuild("torch is not installed here (install it first, then use --no-build-isolation).") from None

    includes = [f"-I{path}" for path in include_paths()]
    units = cpu_units(compiler, includes) + cuda_units(torch.version.cuda, includes)
    cuda_libraries = ["-lc10_cuda", "-ltorch_cuda"] if torch.version.cuda is not None else []
    libraries = [f"-L{Path(torch.__file__).parent / 'lib'}", "-lc10", "-ltorch_cpu", *cuda_libraries]
    # OpenMP and the CUDA runtime are not linked: their symbols come from the copies that torch has loaded, since a
    # second copy would bring a second thread pool.
    headers = (path for path in CSRC.rglob("*.*h") if path.parent.name not in EXTENSIONS)
    flags, version = ["-Wl,--no-as-needed"], torch.__version__
    build_library("native ops", compiler, units, target, flags, libraries, headers=headers, version=version)


def build_python_extension(folder: str, compiler: str, target: Path) -> None:
    """Bring the Python extension of a folder of csrc/ up to date. Raises CannotBuild."""
    try:
        import pybind11
    except ImportError:
        raise CannotBuild("pybind11 is not installed here (`pip install pybind11`).") from None

    includes = [f"-I{path}" for path in (pybind11.get_include(), sysconfig.get_path("include"))]
    sources = [*sorted((CSRC / folder).glob("*.cpp")), CSRC / "bindings" / f"{folder}.cpp"]
    units = [
        Unit(source, (compiler, *EXTENSION_FLAGS, *includes), f"{source.parent.name}-{source.stem}")
        for source in sources
    ]
    version = f"{pybind11.__version__} {sys.version}"
    headers = (CSRC / folder).glob("*.h")
    build_library(f"native {folder}", compiler, units, target, [], [], headers=headers, version=version)


# Name for a person, what does the work instead, and how to build it.
BUILDS: dict[str, tuple[str, str, Callable[[str, Path], None]]] = {
    OPS: ("native ops", "Plain torch", build_ops),
    CORRUPTION: ("native corruption", "Numpy", partial(build_python_extension, "corruption")),
    PACKING: ("native packing", "Plain Python", partial(build_python_extension, "packing")),
}


def build_library(
    name: str,
    compiler: str,
    units: list[Unit],
    target: Path,
    link_flags: list[str],
    libraries: list[str],
    *,
    headers: Iterable[Path],
    version: str,
) -> None:
    """Compile the units that are not current and link them. headers, version: what else they are made from."""
    headers_digest = digest_of(sorted(headers), version)
    folder = ROOT / "build" / "native"
    folder.mkdir(parents=True, exist_ok=True)
    objects = [unit.object_file(folder, headers_digest) for unit in units]
    stale = [(unit, path) for unit, path in zip(units, objects, strict=True) if not path.exists()]
    for unit, _ in stale:
        print(f"{name}: compiling {unit.source.relative_to(ROOT)} ({unit.name})", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda work: compile_unit(*work), stale))
    if link(compiler, objects, target, link_flags, libraries):
        print(f"{name}: built {target}", flush=True)


def cpu_units(compiler: str, includes: list[str]) -> list[Unit]:
    """The vector loops once for each instruction set, and the code around them."""
    levels: dict[str, list[str]] = {"Baseline": []}
    defines = []
    if platform.machine() in ("x86_64", "AMD64"):
        levels |= X86_LEVELS
        defines = ["-DTRIARCH_X86_LEVELS"]
    units = [
        Unit(
            CSRC / source,
            (compiler, *LOOP_FLAGS, *defines, *flags, f"-DTRIARCH_LOOPS=k{level}{loops}"),
            f"{loops}-{level}".lower(),
        )
        for source, loops in VECTOR_LOOPS.items()
        for level, flags in levels.items()
    ]
    for path in (*sorted(CSRC.rglob("*_cpu.cpp")), CSRC / "bindings" / "attention.cpp"):
        units.append(Unit(path, (compiler, *TORCH_FLAGS, *defines, *includes), path.stem))
    return units


def cuda_units(torch_cuda: str | None, includes: list[str]) -> list[Unit]:
    """The CUDA sources, where torch was built with CUDA and nvcc is there."""
    if torch_cuda is None:
        return []
    nvcc = os.environ.get("NVCC") or shutil.which("nvcc")
    if nvcc is None:
        print("native ops: CUDA kernels are left out: nvcc was not found (name it in NVCC).", flush=True)
        return []
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace("+PTX", "").replace(".", "").replace(";", " ").split()
    architectures = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in wanted or DEFAULT_CUDA_ARCHITECTURES]
    flags = ("-std=c++20", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden", *architectures, *includes)
    return [Unit(source, (nvcc, *flags), source.stem) for source in sorted(CSRC.rglob("*.cu"))]


def digest_of(files: list[Path], *more: str) -> str:
    """One digest of the contents of files and of further strings."""
    digest = hashlib.sha256()
    for text in (*(file.read_text() for file in files), *more):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def compile_unit(unit: Unit, target: Path) -> None:
    """Compile to a temporary name, so that an interrupted build leaves no half object."""
    for outdated in target.parent.glob(f"{unit.name}-{'[0-9a-f]' * 16}.o"):
        outdated.unlink()
    unfinished = target.with_suffix(f".{os.getpid()}.tmp.o")
    run([*unit.command, "-c", str(unit.source), "-o", str(unfinished)])
    unfinished.replace(target)


def link(compiler: str, objects: list[Path], target: Path, flags: list[str], libraries: list[str]) -> bool:
    """Link into `target`; False when it was linked from the same objects before."""
    stamp = ROOT / "build" / "native" / f"linked-{digest_of([], str(target))[:16]}"
    recipe = digest_of([], *(path.name for path in objects), *flags, *libraries)
    if target.exists() and stamp.exists() and stamp.read_text() == recipe:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}.tmp.so")
    run([compiler, "-shared", *flags, *map(str, objects), *libraries, "-o", str(unfinished)])
    unfinished.replace(target)
    stamp.write_text(recipe)
    return True


def run(command: list[str]) -> None:
    """Run a compiler; CannotBuild with its first error if it fails."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        log = ROOT / "build" / "native" / "failed.log"
        log.write_text(" ".join(command) + "\n" + result.stdout + result.stderr)
        errors = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines() or ["?"]
        raise CannotBuild(f"{Path(command[0]).name} failed: {errors[0].strip()} (all of it: {log}).")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    setup(
        packages=find_namespace_packages(include=["megatron.*"]),
        package_data={"megatron.prompting.mixtures": ["*.yaml"]},
        ext_modules=[Extension(name, sources=[]) for name in BUILDS],
        cmdclass={"build_ext": BuildNative},
    )
