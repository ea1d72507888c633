"""Generate the Python stubs in client/vmmr from the protos beside this file, or check that they are up to date.

python protos/generate.py [--check]

Either way it first compares the protos with `landed.binpb`, the contracts as they were generated last, and fails if a change breaks
callers that were built with those. `landed.binpb` is renewed only after that, so what has landed once can never be broken unnoticed.
"""

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

PROTOS = Path(__file__).parent.resolve()
CLIENT = PROTOS.parent / "client"
LANDED = PROTOS / "landed.binpb"


def generate(out: Path) -> list[Path]:
    """Write the stubs of every proto below `out`; return their paths relative to it."""
    # protoc finds the mypy-protobuf plugin beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    protos = sorted((PROTOS / "vmmr").rglob("*.proto"))
    plugins = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python", "mypy_grpc")]
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    if protoc.main(["protoc", f"-I{PROTOS}", f"-I{well_known}", *plugins, *map(str, protos)]) != 0:
        sys.exit("protoc failed")
    for package in {out / proto.relative_to(PROTOS).parent for proto in protos}:
        for folder in (package, package.parent):
            (folder / "__init__.py").touch()
    return sorted(path.relative_to(out) for path in out.rglob("*.py*"))


def stale(fresh: Path, stubs: list[Path]) -> list[Path]:
    """Stubs that are missing from, different in, or left over in client/vmmr."""
    committed = {path.relative_to(CLIENT) for path in (CLIENT / "vmmr").glob("*/v[12]/*.py*")}
    left_over = committed - set(stubs)
    _, different, missing = filecmp.cmpfiles(fresh, CLIENT, stubs, shallow=False)
    return sorted({*left_over, *map(Path, different), *map(Path, missing)})


def refuse_breaking() -> None:
    """Exit, naming each change, if the protos break a caller that was built with the contracts in `landed.binpb`."""
    if buf("breaking", "--against", str(LANDED)) != 0:
        sys.exit(
            "the protos break what has landed (above). Give back what was there: fields keep their numbers, names and types for ever. If it "
            f"never was on main, take the contracts from there: git checkout origin/main -- protos/{LANDED.name}"
        )


def write_image(file: Path) -> None:
    """Write the contracts, without comments, as buf compares them."""
    if buf("build", "--exclude-source-info", "--output", str(file)) != 0:
        sys.exit("buf build failed")


def contracts(file: Path) -> list[bytes]:
    """Return the descriptors in an image, without what buf's version adds to them."""
    image = FileDescriptorSet.FromString(file.read_bytes())
    image.DiscardUnknownFields()
    return sorted(each.SerializeToString(deterministic=True) for each in image.file)


def buf(*arguments: str) -> int:
    """Run the buf beside this interpreter on the repository; return its exit code."""
    return subprocess.run([Path(sys.executable).parent / "buf", *arguments], cwd=PROTOS.parent, check=False).returncode  # noqa: S603 (ours)


def check() -> None:
    """Exit, saying what to do, if the committed stubs or `landed.binpb` are not those of the protos."""
    with tempfile.TemporaryDirectory() as folder:
        fresh, image = Path(folder), Path(folder, LANDED.name)
        if differing := stale(fresh, generate(fresh)):
            sys.exit("stale stubs, run `make protos`: " + ", ".join(map(str, differing)))
        write_image(image)
        if contracts(image) != contracts(LANDED):
            sys.exit(f"protos/{LANDED.name} is stale, run `make protos`")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if what is committed is stale")
    wants_check = parser.parse_args().check
    refuse_breaking()
    if wants_check:
        check()
        return
    generate(CLIENT)
    write_image(LANDED)


if __name__ == "__main__":
    main()
