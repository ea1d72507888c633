"""Render the chart with its defaults, for those who use kubectl or kustomize: `python deploy/kubernetes/render.py`. Needs helm-python-sdk."""

from pathlib import Path

import helm_python

HERE = Path(__file__).parent


def rendered() -> str:
    """Return the objects of a release called `cars`, in no namespace."""
    with helm_python.Chart.load(str(HERE.parent / "helm/vmmr")) as chart:
        # The page names the services without their namespace: that of its own pod.
        texts = chart.render({}, name="cars", namespace="NAMESPACE").values()
    return "".join(texts).replace(".NAMESPACE.svc:", ":").strip() + "\n"


if __name__ == "__main__":
    (HERE / "vmmr.yaml").write_text(f"# Of deploy/helm/vmmr, by render.py beside it. Do not edit.\n{rendered()}")
