"""What the SDK makes of a server that knows its callers."""

import asyncio
import hashlib

import pytest
import vmmr

TIMEOUT_S = 60
CALLERS = f"""
[caller.shop]
role = "query"
requests_per_s = 5

[[token]]
caller = "shop"
sha256 = "{hashlib.sha256(b"shop").hexdigest()}"
"""


@pytest.fixture
async def served(serve, tmp_path):
    (tmp_path / "callers.toml").write_text(CALLERS)
    return await serve(callers=tmp_path / "callers.toml")


def client(served, token):
    address = f"127.0.0.1:{served.server.port}"
    return vmmr.AsyncClient(address, address, token=token, timeout_s=TIMEOUT_S)


def refused(served) -> float:
    return served.server.metrics.registry.get_sample_value("vmmr_errors_total", {"reason": "QUOTA_EXCEEDED"}) or 0


async def test_it_waits_as_long_as_a_limit_says_and_no_call_fails(served):
    async with client(served, "shop") as shop:
        found = await asyncio.gather(*(shop.embed([b"1"]) for _ in range(8)))
    assert len(found) == 8
    assert refused(served) >= 1


async def test_a_token_that_is_not_known_is_told(served):
    async with client(served, "another") as stranger:
        with pytest.raises(vmmr.UnauthenticatedError) as caught:
            await stranger.embed([b"1"])
    assert (caught.value.reason, caught.value.metadata["cause"]) == ("UNAUTHENTICATED", "unknown_token")
