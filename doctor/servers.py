"""What of the servers can be seen from a caller: whether they answer, their certificates, their clock, and how long a photo takes."""

import email.utils
import http.client
import io
import math
import socket
import ssl
import time
import urllib.request
from pathlib import Path

from PIL import Image
from vmmr import CallError, Client, VmmrError, _failures
from vmmr._channel import TLS
from vmmr._cli.report import in_flags
from vmmr._served import Info

from doctor.findings import Finding, fail, not_checked, ok, warn
from svckit.redaction import without_secrets

_SOON_DAYS = 30
_SKEW_S, _WRONG_S = 2.0, 60.0
_SLOW_S = 1.0
_CONNECT_S = 5.0
_EXPIRED = 10
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED."""


def reach(client: Client) -> tuple[list[Finding], Info | None]:
    """Ask both services what they serve."""
    found = []
    try:
        model = client.model_info()
        found.append(ok("embedder", f"answers: {model.name}, {model.fingerprint[:12]}, on {model.provider}"))
    except VmmrError as error:
        found.append(fail("embedder", in_flags(str(error)), _what_to_do(error, "vmmr-embedder", "--embedder")))
    try:
        list(zip(client.labels(), range(1), strict=False))
        found.append(ok("search service", "answers"))
    except VmmrError as error:
        found.append(fail("search service", in_flags(str(error)), _what_to_do(error, "vmmr-search", "--search")))
    return found, _info(client) if all(each.state == "ok" for each in found) else None


def served(info: Info | None) -> Finding:
    """Say whether what is served fits together and is well."""
    name = "served pair"
    if info is None:
        return not_checked(name, "a service does not answer")
    if not info.same_model:
        text = f"the embedder serves {info.model.fingerprint[:12]}, the gallery is of {info.index.model[:12]}: every query is refused"
        return fail(name, text, "serve the gallery's model, or a gallery of this one: `vmmr-search migrate`")
    if info.index.problem:
        return fail(name, info.index.problem, "docs/live.md, When the disk fails, says what helps")
    if info.index.lost_entries:
        text = f"{info.index.lost_entries} acknowledged changes of the gallery are lost"
        return warn(name, text, "`vmmr-search repair` said which: send them again")
    return ok(name, "of one fingerprint, and without a problem")


def certificate(name: str, address: str, tls: TLS | None) -> Finding:
    """Look at the certificate that a server shows."""
    check = f"certificate of the {name}"
    if tls is None:
        return not_checked(check, "no TLS was asked for (--tls, --tls-ca)")
    host, _, port = address.rpartition(":")
    try:
        ends = _certificate_ends(host.rpartition("/")[2].strip("[]"), int(port), tls)
    except ssl.SSLCertVerificationError as error:
        what = (
            "renew it: the server's --tls-cert"
            if error.verify_code == _EXPIRED
            else "trust the CA that signed it: --tls-ca"
        )
        return fail(check, f"{address}: {error.verify_message}", what)
    except (OSError, ValueError) as error:
        return not_checked(check, f"{address}: {getattr(error, 'strerror', None) or error}")
    days = (ends - time.time()) / 86400
    text = f"{address}: ends in {days:.0f} days"
    return ok(check, text) if days > _SOON_DAYS else warn(check, text, "renew it in time")


def clock(url: str | None) -> Finding:
    """Compare this clock with that of a server, by the HTTP page of its metrics, or of vmmr-web: gRPC tells no time."""
    if not url:
        return not_checked(
            "clock", "no page of a server was named that tells its time: --http http://HOST:METRICS_PORT/metrics"
        )
    try:
        with urllib.request.urlopen(url, timeout=_CONNECT_S) as page:  # noqa: S310 (the user named it)
            stated = email.utils.parsedate_to_datetime(page.headers["Date"]).timestamp()
    except (OSError, ValueError, TypeError, http.client.HTTPException) as error:
        return not_checked("clock", without_secrets(f"{url}: {type(error).__name__}: {error}"))
    skew = abs(time.time() - stated)
    text = f"{skew:.0f} s from the server's"
    advice = "let NTP set both clocks: certificates, tokens and logs go by them"
    if skew > _WRONG_S:
        return fail("clock", text, advice)
    return warn("clock", text, advice) if skew > _SKEW_S else ok("clock", text)


def photo(client: Client, path: Path | None, info: Info | None) -> Finding:
    """Identify a photo twice, a grey one if none is given, and time the second."""
    if info is None or not info.same_model:
        return not_checked("a photo", "the services do not answer together")
    try:
        content = path.read_bytes() if path else _grey()
    except OSError as error:
        return fail("a photo", f"{path}: {error.strerror}", "name a photo that can be read: --photo")
    try:
        client.identify(content)
        started = time.perf_counter()
        answer = client.identify(content)
        seconds = time.perf_counter() - started
    except VmmrError as error:
        return fail("a photo", str(error), "see the logs of both servers, by the request id")
    text = f"{1e3 * seconds:.0f} ms from file to answer ({answer.verdict})"
    if seconds > _SLOW_S:
        return warn("a photo", text, "docs/performance.md says what to expect; look at the queue and at other programs")
    return ok("a photo", text)


def _what_to_do(error: VmmrError, program: str, flag: str) -> str:
    """Return what helps where a service did not answer: only one that was not reached may have to be started."""
    status, reason = (error.status, error.reason) if isinstance(error, CallError) else ("", None)
    if status in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return "give a token or a certificate that it lets in: --token-file, --tls-cert and --tls-key; docs/access.md"
    if reason == _failures.TLS_FAILED:
        return "give --tls, --tls-ca, or neither, as it serves; what is found of its certificate is below"
    if status == "UNAVAILABLE":
        return f"start `{program} serve`, or name it by {flag}; see its log"
    return f"see whether {flag} names it, and its log"


def _info(client: Client) -> Info | None:
    try:
        return client.info()
    except VmmrError:
        return None


def _certificate_ends(host: str, port: int, tls: TLS) -> float:
    """Return when the certificate ends, or the first of those in the CA's file, as a Unix time."""
    context = ssl.create_default_context(cafile=tls.ca)
    context.set_alpn_protocols(["h2"])
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key)
    plain = socket.create_connection((host, port), _CONNECT_S)
    with plain, context.wrap_socket(plain, server_hostname=host) as secure:
        shown = secure.getpeercert() or {}
    authorities = context.get_ca_certs() if tls.ca else []
    ends = [ssl.cert_time_to_seconds(str(each["notAfter"])) for each in (shown, *authorities) if "notAfter" in each]
    return min(ends, default=math.inf)


def _grey() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (500, 375), (128, 128, 128)).save(file, "JPEG")
    return file.getvalue()
