"""What `vmmr-search engine` prints and refuses, without a cluster."""

import sys

import pytest

from search_svc.__main__ import parser
from svckit.cli import CommandError


@pytest.mark.parametrize("command", [["status"], ["scale", "--replicas=2"]])
def test_what_is_no_address_is_refused_before_ray_is_looked_for(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "search_svc.engine.cluster.connection", raising=False)
    args = parser().parse_args(["engine", *command, "--ray-address", "ray://head:10001"])
    with pytest.raises(CommandError, match=r"^--ray-address must be HOST:PORT of the Ray cluster's GCS, .*ray://head"):
        args.run(args)
