"""Run the steps of the Dockerfiles without Docker, in a bare Debian made by debootstrap, and ask the services inside for a photo.

    sudo .venv/bin/python deploy/try_images.py PHOTO [--work DIR]

It takes root, debootstrap and some minutes, and leaves DIR (3 GB) for the next try. Debian 12's Python 3.11 stands in for that of the images' base, and `chroot`,
as the images' user, for a container: what is tried is that the steps work from nothing, that the image lacks nothing and holds no tools, and that it serves.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from string import Template

ROOT = Path(__file__).parents[1]
DEBIAN = ("--variant=minbase", "--include=python3,python3-venv,python3-pip,ca-certificates", "bookworm")
SBOM = "opt/vmmr/share/vmmr/sbom.cdx.json"
TOOLS = ("opt/vmmr/bin/pip", "usr/bin/gcc", "usr/bin/cc", "usr/bin/make", "opt/sbom")
READY_S = 300
SAID = ("USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD")
KNOWN = ("ARG", "ENV", "WORKDIR", "RUN", "COPY", *SAID)
"""The instructions that this program knows, besides FROM."""


@dataclass
class Stage:
    """A stage of a Dockerfile, and what its instructions have come to so far."""

    root: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    )
    folder: str = "/"
    said: dict[str, str] = field(default_factory=dict)
    """The arguments of the instructions that say how the image runs, such as USER and CMD."""

    def run(self, *command: str, user: str = "0:0", extra: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start a command inside."""
        environment = {**self.environment, **(extra or {})}
        script = 'mount --rbind /proc "$1/proc" && cd / && shift && exec "$@"'
        return subprocess.Popen(
            [
                *("unshare", "--mount", "sh", "-c", script, "sh", str(self.root)),
                *("chroot", f"--userspec={user}", str(self.root)),
                *("/bin/sh", "-c", f'cd {self.folder} && exec "$@"', "sh", *command),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def check(self, *command: str, user: str = "0:0", extra: Mapping[str, str] | None = None) -> str:
        """Return what a command inside printed. Exit with it if the command fails."""
        process = self.run(*command, user=user, extra=extra)
        said, _ = process.communicate()
        if process.returncode:
            sys.exit(f"{self.root.name}: {' '.join(command)} ended with {process.returncode}:\n{said[-4000:]}")
        return said


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Dockerfile, with their arguments."""
    for line in re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, arguments = line.partition(" ")
            yield name, " ".join(arguments.split())


def build(name: str, base: Path, work: Path) -> Stage:
    """Run the steps of a Dockerfile, and return its last stage."""
    stages: dict[str, Stage] = {}
    stage = None
    for instruction, arguments in instructions((ROOT / f"deploy/Dockerfile.{name}").read_text()):
        if instruction == "FROM":
            alias = arguments.partition(" AS ")[2] or "image"
            stage = stages[alias] = Stage(copied_tree(base, work / f"{name}-{alias}"))
        elif stage is not None:
            step(stage, instruction, arguments, stages)
    return stages["image"]


def copied_tree(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    return target


def step(stage: Stage, instruction: str, arguments: str, stages: Mapping[str, Stage]) -> None:
    """Run one instruction. Exit if it is one that this program does not know."""
    match instruction:
        case "ARG":
            stage.environment.update([arguments.split("=", 1)])
        case "ENV":
            for name, value in re.findall(r"(\w+)=(\S+)", arguments):
                stage.environment[name] = Template(value).safe_substitute(stage.environment)
        case "WORKDIR":
            stage.folder = arguments
            (stage.root / arguments.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "RUN":
            stage.check("/bin/sh", "-e", "-c", re.sub(r"^(--\S+ )+", "", arguments), extra=pip_settings())
        case "COPY":
            copy(stage, arguments, stages)
        case _ if instruction in SAID:
            stage.said[instruction] = arguments
        case _:
            sys.exit(f"deploy/try_images.py does not know {instruction}")


def copy(stage: Stage, arguments: str, stages: Mapping[str, Stage]) -> None:
    """Copy what git has of the repository, or a folder of another stage."""
    *words, target = arguments.split()
    flags = dict(word.removeprefix("--").split("=") for word in words if word.startswith("--"))
    sources = [word for word in words if not word.startswith("--")]
    place = stage.root / str(PurePosixPath(stage.folder, target)).lstrip("/")
    for source in sources:
        if other := flags.get("from"):
            subprocess.run(["cp", "-a", str(stages[other].root / source.lstrip("/")), str(place)], check=True)
        else:
            copy_tracked(ROOT / source, place / Path(source).name if len(sources) > 1 else place)
    if owner := flags.get("chown"):
        subprocess.run(["chown", "-R", owner, str(place)], check=True)


def copy_tracked(source: Path, target: Path) -> None:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", str(source)], check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        place = target / (ROOT / name).relative_to(source) if source.is_dir() else target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place)


# --- what came of it --------------------------------------------------------------------------------------------------


def described(stage: Stage) -> dict[str, object]:
    """Return what is in an image. Exit if it has a tool to build with, a package without a licence, or no SBOM."""
    if tools := [tool for tool in TOOLS if (stage.root / tool).exists()]:
        sys.exit(f"{stage.root.name}: {', '.join(tools)} should not be in it")
    bom = json.loads((stage.root / SBOM).read_text())
    without = [part["name"] for part in bom["components"] if not part.get("licenses")]
    if without:
        sys.exit(f"{stage.root.name}: the SBOM has no licence of {', '.join(without)}")
    size = subprocess.run(["du", "-sm", str(stage.root / "opt/vmmr")], check=True, capture_output=True, text=True)
    return {
        "sbom": f"{bom['bomFormat']} {bom['specVersion']}",
        "packages": len(bom["components"]),
        "without_licence_text": without_licence_text(stage.root),
        "megabytes_of_packages": int(size.stdout.split()[0]),
        "user": stage.said["USER"],
    }


def without_licence_text(root: Path) -> list[str]:
    """Return the packages of an image that have no file of their licence: those say it in their metadata alone."""
    packages = (root / "opt/vmmr/lib").glob("python3.*/site-packages/*.dist-info")
    return sorted(path.name.partition("-")[0] for path in packages if not any(map(is_licence, path.rglob("*"))))


def is_licence(path: Path) -> bool:
    return bool(re.search(r"licen[cs]e|copying|notice", path.name, re.IGNORECASE)) and path.is_file()


@contextmanager
def running(stage: Stage, **settings: str) -> Iterator[None]:
    """Run the image's command as its user until its health check passes; afterwards, stop it by SIGTERM, and exit unless it ends with 0."""
    command = [*json.loads(stage.said["ENTRYPOINT"]), *json.loads(stage.said["CMD"])]
    process = stage.run(*command, user=stage.said["USER"], extra=settings)
    probe = stage.said["HEALTHCHECK"].partition("CMD ")[2]
    try:
        until_healthy(stage, process, probe, settings)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    if process.returncode:
        sys.exit(f"{stage.root.name} ended with {process.returncode}:\n{said[-4000:]}")


def until_healthy(stage: Stage, process: "subprocess.Popen[str]", probe: str, settings: Mapping[str, str]) -> None:
    end = time.monotonic() + READY_S
    while True:
        check = stage.run("/bin/sh", "-c", probe, user=stage.said["USER"], extra=settings)
        check.communicate()
        if check.returncode == 0:
            return
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            sys.exit(f"{stage.root.name} is not healthy:\n{process.communicate()[0][-4000:]}")
        time.sleep(1)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def settings(name: str, port: int, metrics_port: int) -> dict[str, str]:
    prefix = f"VMMR_{name.upper()}"
    return {f"{prefix}_HOST": "127.0.0.1", f"{prefix}_PORT": str(port), f"{prefix}_METRICS_PORT": str(metrics_port)}


def ask(images: Mapping[str, Stage], photo: Path) -> dict[str, object]:
    """Serve all three, and return what `vmmr identify` inside one, and the page's HTTP, answer to a photo."""
    ports = free_ports(2 * len(images))
    at = dict(zip(images, ports, strict=False))
    given = {name: settings(name, at[name], ports[-1 - place]) for place, name in enumerate(images)}
    given["web"] |= {"VMMR_WEB_EMBEDDER": f"127.0.0.1:{at['embedder']}", "VMMR_WEB_SEARCH": f"127.0.0.1:{at['search']}"}
    inside = images["embedder"]
    shutil.copy(photo, inside.root / "tmp/photo.jpg")
    with ExitStack() as stack:
        for name, stage in images.items():
            stack.enter_context(running(stage, **given[name]))
        where = ("--embedder", f"127.0.0.1:{at['embedder']}", "--search", f"127.0.0.1:{at['search']}")
        said = inside.check("vmmr", "identify", "/tmp/photo.jpg", "--json", *where, user=inside.said["USER"])
        request = urllib.request.Request(
            f"http://127.0.0.1:{at['web']}/v1/identify", photo.read_bytes(), {"Content-Type": "image/jpeg"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            over_http = json.loads(reply.read())
    return {"vmmr identify": json.loads(said), "POST /v1/identify": over_http}


def base_in(work: Path, mirror: str) -> Path:
    """Return a bare Debian with Python, made when it is first asked for."""
    base = work / "base"
    if not (base / "usr/bin/python").exists():
        shutil.rmtree(base, ignore_errors=True)
        subprocess.run(["debootstrap", *DEBIAN, str(base), mirror], check=True, stdout=subprocess.DEVNULL)
        (base / "usr/bin/python").symlink_to("python3")
    return base


def let_it_reach_packages(base: Path) -> None:
    """Give a root this machine's names and certificates, by which pip reaches packages."""
    for name in ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt"):
        if Path("/", name).exists():
            shutil.copy(Path("/", name), base / name)


def pip_settings() -> dict[str, str]:
    """Return the variables by which pip is told on this machine where packages are."""
    return {
        name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.lower().endswith("_proxy")
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="a photo of a car, a JPEG")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/vmmr-images"), metavar="DIR")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian", metavar="URL")
    args = parser.parse_args(arguments)
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        sys.exit("deploy/try_images.py takes root and debootstrap (apt-get install debootstrap)")
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    base = base_in(work, args.mirror)
    let_it_reach_packages(base)
    images = {name: build(name, base, work) for name in ("embedder", "search", "web")}
    for name in images:
        shutil.rmtree(work / f"{name}-build")
    found = {name: described(stage) for name, stage in images.items()}
    print(json.dumps({"images": found, "answers": ask(images, args.photo)}, indent=1))


if __name__ == "__main__":
    main()
