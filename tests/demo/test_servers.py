import shutil

import pytest
import vmmr

from demo.servers import serving
from svckit.cli import CommandError
from svckit.probe import health

pytestmark = pytest.mark.xdist_group("demo")  # one worker builds the chain, once


def test_both_servers_serve_while_the_block_lasts_and_end_well(chain, tmp_path, capsys):
    with serving(tmp_path, chain.index) as pair:
        assert [health(address) for address in (pair.embedder, pair.search)] == ["SERVING", "SERVING"]
        with vmmr.Client(pair.embedder, pair.search) as client:
            assert client.info().index.items == 32
    assert [health(address).split(":")[0] for address in (pair.embedder, pair.search)] == ["UNAVAILABLE"] * 2
    assert "both servers drained, and ended with exit code 0" in capsys.readouterr().out


def test_a_server_that_does_not_start_is_told_with_its_log(chain, tmp_path, capsys):
    index = shutil.copytree(chain.index, tmp_path / "index")
    (index / "versions/000001/shard-000.faiss").write_bytes(b"damaged")
    with pytest.raises(CommandError, match="the search server ended with exit code 1"), serving(tmp_path, index):
        pass
    assert "shard-000.faiss" in capsys.readouterr().err


def test_if_the_block_fails_both_servers_end_and_their_logs_are_shown(chain, tmp_path, capsys):
    with pytest.raises(RuntimeError, match="the block"), serving(tmp_path, chain.index) as pair:
        raise RuntimeError("the block")
    assert [health(address).split(":")[0] for address in (pair.embedder, pair.search)] == ["UNAVAILABLE"] * 2
    shown = capsys.readouterr().err
    assert all(f'"message": "ready", "server": "{name}"' in shown for name in ("embedder", "search"))
