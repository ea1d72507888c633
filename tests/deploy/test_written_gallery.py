"""The gallery of a container, as plain processes: filled as Docker and the page do it, served by the image's user, and written to."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import yaml
from vmmr import wire
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc

from search_svc.index.version import IndexVersion
from svckit import shipped

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60
USER = 10001

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="being another user takes root and setpriv (util-linux)"
)


@pytest.fixture
def volume(tmp_path):
    """A folder of the image's user, whom the folders above let in."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    made = tmp_path / "volume"
    made.mkdir()
    return made


def init_command():
    """The words of the init container's command, as the chart has it for a server that is written to."""
    chart = (ROOT / "deploy/helm/vmmr/templates/_helpers.tpl").read_text()
    (words,) = re.findall(r"\.writer }}(\[sh, -c, .*\])$", chart, re.MULTILINE)
    return yaml.safe_load(words)


def fill_as_an_init_container(volume):
    os.chown(volume, USER, USER)
    words = [word.replace("/index", str(shipped.gallery())).replace("/data", str(volume)) for word in init_command()]
    subprocess.run(words, check=True, user=USER, group=USER, extra_groups=())
    return volume / "gallery"


def fill_as_docker(volume):
    """Docker copies the image's folder into a new volume, with its owner: `COPY --chown`."""
    shutil.copytree(shipped.gallery(), volume, dirs_exist_ok=True, ignore=shutil.ignore_patterns("journal.*", "*.lock"))
    subprocess.run(["chown", "-R", f"{USER}:{USER}", volume], check=True)
    return volume


# That user, but for one thing: it may read everywhere, because Python itself may be in a folder of root's.
AS_USER = (
    *(f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)


@pytest.fixture
def serve(run):
    """`serve(folder)`: the search service of the image's user, over it."""
    command = (*AS_USER, sys.executable, "-m", "search_svc", "serve", "--port", 0)
    return lambda folder: run(*command, "--index", folder, python="setpriv", cwd=ROOT)


def add(process):
    """Add a photo to what is served."""
    served = IndexVersion.open(shipped.gallery(), verify=False).manifest
    with grpc.insecure_channel(f"127.0.0.1:{process.ready()['port']}") as channel:
        vector = np.eye(1, served.dimension, dtype=np.float32)
        request = gallery_pb2.AddItemsRequest(
            items=[gallery_pb2.Item(item_id="new", label="honda_pilot_2027")],
            embeddings=wire.pack(served.model, vector),
        )
        return gallery_pb2_grpc.GalleryServiceStub(channel).AddItems(request, timeout=TIMEOUT_S)


@pytest.mark.parametrize("fill", [fill_as_docker, fill_as_an_init_container])
def test_the_images_user_adds_to_the_gallery_of_a_volume(volume, serve, fill):
    gallery = fill(volume)
    assert add(serve(gallery)).added == 1
    assert {(path.stat().st_uid, path.stat().st_gid) for path in gallery.iterdir()} == {(USER, USER)}
    assert (gallery / "journal.db").exists()


def test_an_init_container_that_comes_again_leaves_what_was_added(volume, serve):
    gallery = fill_as_an_init_container(volume)
    assert add(serve(gallery)).added == 1
    journal = (gallery / "journal.db").read_bytes()
    fill_as_an_init_container(volume)
    assert (gallery / "journal.db").read_bytes() == journal


def test_a_folder_of_another_user_is_served_and_each_write_refused_and_told_once_in_the_log(volume, serve):
    fill_as_docker(volume)
    subprocess.run(["chown", "-R", "0:0", volume], check=True)
    process = serve(volume)
    for _ in range(2):
        with pytest.raises(grpc.RpcError, match="cannot be written"):
            add(process)
    process.popen.terminate()
    process.wait()
    (line,) = process.logged("the journal cannot be written")
    assert (line["level"], line["reason"]) == ("ERROR", "JOURNAL_UNWRITABLE")
