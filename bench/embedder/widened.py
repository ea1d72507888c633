"""The embedder as it runs on an x86 CPU without VNNI, on one that has it: `python -m bench.embedder.widened serve`."""

from embedder_svc.__main__ import main
from embedder_svc.network import arithmetic

if __name__ == "__main__":
    arithmetic.int8_arithmetic = lambda: "widened"
    main()
