import pytest

from embedder_svc.network.runtime import on_gpu
from svckit import wheels


def test_a_device_that_is_named_is_what_it_is(tmp_path):
    assert [on_gpu(device, tmp_path) for device in ("cpu", "cuda", "tensorrt")] == [False, True, True]


@pytest.mark.parametrize(
    ("names", "there"),
    [
        (("nvidia0", "nvidiactl"), True),
        (("nvidia3", "nvidiactl"), True),
        (("dxg",), True),
        (("nvidiactl", "nvidia-uvm"), False),
        ((), False),
    ],
)
def test_auto_is_a_gpu_where_one_is_whatever_its_number_and_an_onnxruntime_for_it(tmp_path, monkeypatch, names, there):
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(wheels, "installed", lambda _: True)
    assert on_gpu("auto", tmp_path) is there
    monkeypatch.setattr(wheels, "installed", lambda _: False)
    assert on_gpu("auto", tmp_path) is False
