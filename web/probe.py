"""Exit with 0 if the program on this machine is alive: `python -m web.probe`, for the health check of a container.

It reads the port and whether TLS is on where the program does, from the environment. The certificate's name is not checked, for it is that
of the outside.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request

_TIMEOUT_S = 4.0


def main() -> None:
    secure = bool(os.environ.get("VMMR_WEB_TLS_CERT"))
    context = ssl._create_unverified_context() if secure else None  # noqa: S323, SLF001 (to this machine alone)
    url = f"http{'s' if secure else ''}://127.0.0.1:{os.environ.get('VMMR_WEB_PORT') or 8080}/healthz"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S, context=context):  # noqa: S310 (of this machine)
            pass
    except (OSError, urllib.error.URLError) as error:
        sys.exit(f"{url}: {error}")


if __name__ == "__main__":
    main()
