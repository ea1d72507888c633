"""Refusals: everything that is wrong with a request, at once."""

from collections.abc import Sequence

from svckit.errors import Reason, ServiceError, Violation


def rejected(violations: Sequence[Violation]) -> ServiceError:
    """The error for a request with these faults. Its reason is that of the first."""
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return ServiceError(Reason(violations[0].reason), message, violations=violations)
