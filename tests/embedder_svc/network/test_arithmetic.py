"""int8 on the CPU: the quicker arithmetic where its sums are exact, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest

from embedder_svc.network import arithmetic
from embedder_svc.network.arithmetic import VNNI, has_dot_products, int8_arithmetic
from embedder_svc.network.bundle import GRAPH
from embedder_svc.network.model import Model
from embedder_svc.network.runtime import Runtime

AVX512 = "avx2 fma avx512f avx512bw avx512dq avx512vl"
SHIPPED = Path(__file__).parents[3] / "models/resnet50-cars-int8"
OPTION = "session.x64quantprecision"

needs_vnni = pytest.mark.skipif(
    int8_arithmetic() not in VNNI, reason="THIS CPU HAS NO VNNI: that both arithmetics agree is NOT TESTED here"
)


@pytest.fixture
def cpu(tmp_path):
    """`cpu(flags, ...)`: a cpuinfo of processors with these flags."""

    def made(*processors):
        path = tmp_path / "cpuinfo"
        path.write_text(
            "\n".join(f"processor\t: 0\nflags\t\t: fpu {flags}\nbugs\t\t: spectre_v1\n" for flags in processors)
        )
        return path

    return made


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (f"{AVX512} avx512_vnni", "avx512-vnni"),
        (f"{AVX512} avx512_vnni avx_vnni amx_tile amx_int8", "avx512-vnni"),
        ("avx2 fma avx_vnni", "avx-vnni"),
        ("avx2 fma", "widened"),
        (AVX512, "widened"),
        ("sse4_1", "widened"),
        (f"{AVX512} avx_vnni", "widened"),
        (f"{AVX512} amx_tile amx_int8", "widened"),
        ("avx2 fma avx512f avx512_vnni", "widened"),
        ("avx2 fma avx512f avx512_vnni avx_vnni", "avx-vnni"),
        ("avx2 fma avx512_vnni_not", "widened"),
    ],
)
def test_vnni_is_what_onnxruntime_would_use_of_it(cpu, flags, expected):
    assert int8_arithmetic(cpu(flags), "x86_64") == expected
    assert int8_arithmetic(cpu(flags), "AMD64") == expected


def test_of_several_processors_only_what_all_have_counts(cpu):
    assert int8_arithmetic(cpu("avx2 avx_vnni", "avx2 avx_vnni"), "x86_64") == "avx-vnni"
    assert int8_arithmetic(cpu("avx2 avx_vnni", "avx2"), "x86_64") == "widened"


def test_where_nothing_tells_there_is_no_vnni(tmp_path, cpu):
    assert int8_arithmetic(tmp_path / "absent", "x86_64") == "widened"
    assert int8_arithmetic(cpu(), "x86_64") == "widened"


def test_other_architectures_have_arithmetic_of_their_own(tmp_path):
    assert int8_arithmetic(tmp_path / "absent", "aarch64") == "native"


@pytest.mark.parametrize(
    ("machine", "features", "there"),
    [
        ("x86_64", f"flags\t: fpu {AVX512} avx512_vnni", True),
        ("x86_64", "flags\t: fpu avx2 avx_vnni", True),
        ("x86_64", "flags\t: fpu avx2 avx512f avx512_vnni2", False),
        ("x86_64", f"flags\t: fpu {AVX512} avx_vnni", False),
        ("x86_64", "flags\t: fpu asimddp", False),
        ("aarch64", "Features\t: fp asimd asimddp", True),
        ("aarch64", "Features\t: fp asimd", False),
        ("aarch64", "Features\t: fp asimd asimddp\n\nprocessor\t: 1\nFeatures\t: fp asimd", False),
    ],
)
def test_int8_is_quick_where_a_processor_has_dot_products_that_onnxruntime_uses(tmp_path, machine, features, there):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{features}\n")
    assert has_dot_products(tmp_path / "cpuinfo", machine) is there


@pytest.mark.parametrize(("machine", "there"), [("arm64", True), ("aarch64", False), ("x86_64", False)])
def test_where_nothing_tells_only_apples_processors_have_dot_products(tmp_path, machine, there):
    assert has_dot_products(tmp_path / "absent", machine) is there


@pytest.mark.parametrize(
    ("runs", "option"), [("avx512-vnni", None), ("avx-vnni", None), ("widened", "1"), ("native", "1")]
)
def test_sums_are_widened_unless_there_is_vnni(monkeypatch, tiny_bundle, runs, option):
    monkeypatch.setattr(arithmetic, "int8_arithmetic", lambda: runs)
    options = Runtime(tiny_bundle / GRAPH, input_size=32, max_batch=1).session("cpu", 1).get_session_options()
    try:
        found = options.get_session_config_entry(OPTION)
    except RuntimeError:  # onnxruntime's way to say that it is not set
        found = None
    assert found == option


def test_the_log_says_which_arithmetic_an_int8_model_runs_with(monkeypatch, make_bundle, tmp_path, caplog):
    monkeypatch.setattr(arithmetic, "int8_arithmetic", lambda: "avx-vnni")
    caplog.set_level("INFO")
    for precision in ("int8", "fp32"):
        make_bundle(tmp_path / precision, precision=precision)
        Model.open(tmp_path / precision, device="cpu")
    lines = [record for record in caplog.records if record.message == "model"]
    assert [getattr(line, "arithmetic", None) for line in lines] == ["avx-vnni", None]


@needs_vnni
def test_with_vnni_both_arithmetics_give_the_same_embeddings(monkeypatch):
    """On noise, and on black, white and gray, at which products and sums are largest."""
    side = 224
    noise = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8)
    flat = np.stack([np.full((side, side, 3), level, np.uint8) for level in (0, 128, 255)])
    photos = np.concatenate([noise, flat])
    quick = Model.open(SHIPPED, device="cpu").embed(photos)
    monkeypatch.setattr(arithmetic, "int8_arithmetic", lambda: "widened")
    widened = Model.open(SHIPPED, device="cpu").embed(photos)
    assert np.abs(quick - widened).max() <= 1e-6
    assert np.allclose(np.linalg.norm(quick, axis=1), 1, atol=1e-5)
