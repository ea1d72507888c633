"""The settings of who may do what, and of what is noted about it."""

from dataclasses import dataclass
from pathlib import Path

from svckit.config import ConfigError, option


@dataclass(frozen=True, kw_only=True)
class AccessConfig:
    """Part of the settings of every gRPC server."""

    token_file: Path | None = option(None, help="file with a bearer token; callers who send it may do everything")
    callers: Path | None = option(
        None, help="file of callers (TOML): their tokens or certificates, roles, labels and limits"
    )
    jwt_issuer: str | None = option(None, help="issuer of the JWTs that are taken as bearer tokens; their `iss`")
    jwt_audience: str | None = option(None, help="what JWTs must be meant for; their `aud`")
    jwt_keys: str | None = option(None, help="JSON Web Key Set of the issuer: a file, or an https URL")
    audit_log: Path | None = option(None, help="file that gets a JSON line for every write and every refused caller")
    audit_bytes: int = option(
        64 * 2**20, minimum=4096, needs="audit_log", help="size at which the audit log is moved aside; nine are kept"
    )

    def __post_init__(self) -> None:
        jwt = {"--jwt-issuer": self.jwt_issuer, "--jwt-audience": self.jwt_audience, "--jwt-keys": self.jwt_keys}
        if missing := [flag for flag, value in jwt.items() if not value]:
            if len(missing) < len(jwt):
                raise ConfigError(f"{', '.join(jwt)} go together, and {missing[0]} is missing")
        elif "://" in str(self.jwt_keys) and not str(self.jwt_keys).startswith("https://"):
            raise ConfigError(f"--jwt-keys must be a file or an https URL, got {self.jwt_keys}")

    @property
    def asks_who_calls(self) -> bool:
        """Whether callers must say who they are, by more than a certificate."""
        return any((self.token_file, self.callers, self.jwt_keys))
