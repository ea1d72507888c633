"""The two files a run writes: its whole state, to go on from, and the weights that are kept."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from svckit.artifact import ArtifactError, atomic_write


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state in place of the last one. If it is interrupted, one of the two is there, whole."""
    content = io.BytesIO()
    torch.save(state, content)
    atomic_write(path, content.getvalue())


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a state onto the device. Raise ArtifactError if the file holds none, FileNotFoundError if there is no file."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file is a damaged zip, or a damaged pickle in one: exceptions of many kinds
        raise ArtifactError(path, "is no state of a training run, or a damaged one") from error
    return state


def write_weights(path: Path, network: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a .safetensors file: convolutions in float16, all else in float32, because running statistics may be too large."""
    tensors = {
        name: (value.half() if value.ndim == 4 else value.float()).contiguous().cpu()
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    atomic_write(path, safetensors.torch.save(tensors, dict(metadata)))
