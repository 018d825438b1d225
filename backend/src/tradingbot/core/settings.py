"""Settings, from environment variables or from files in /run/secrets named like them in lower case.

A non-empty environment variable wins over the file. Each class holds the settings of one concern, so a
command asks only for what it needs: `tradingbot migrate` wants the database and nothing else.
"""

import json
import os
import tempfile
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources import SecretsSettingsSource

from tradingbot.core import secret_policy

DEFAULT_SECRETS_DIR = "/run/secrets"
# Loopback, and networks that containers and their hosts live in (RFC 1918, RFC 4193).
PRIVATE_NETWORKS = [
    ip_network(network)
    for network in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
]


def _checked(name: str) -> AfterValidator:
    rule = secret_policy.SETTINGS[name]

    def validate(value: SecretStr) -> SecretStr:
        why = rule.problem(value.get_secret_value())
        if why is not None:
            raise ValueError(f"{why}; {rule.fix}")
        return value

    return AfterValidator(validate)


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", hide_input_in_errors=True, frozen=True
    )

    @model_validator(mode="before")
    @classmethod
    def empty_is_unset(cls, values: Any) -> Any:
        """A secret file that is empty stands for a secret that is not in use."""
        return {name: value for name, value in values.items() if value != ""}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        directory = Path(os.environ.get("SECRETS_DIR") or DEFAULT_SECRETS_DIR)
        if not directory.is_dir():
            return init_settings, env_settings
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=directory)


class DatabaseSettings(_Settings):
    """PostgreSQL: where it is and how long it may take (seconds)."""

    database_url: Annotated[SecretStr, _checked("database_url")]
    database_pool_size: PositiveInt = 5
    database_max_overflow: Annotated[int, Field(ge=0)] = 1
    database_pool_timeout: PositiveFloat = 2.0
    database_connect_timeout: PositiveFloat = 2.0
    database_command_timeout: PositiveFloat = 10.0
    # From how many milliseconds on a statement is logged.
    slow_query_ms: PositiveInt = 500


class RedisSettings(_Settings):
    """Redis: where it is and how long it may take (seconds)."""

    redis_url: Annotated[SecretStr, _checked("redis_url")]
    redis_timeout: PositiveFloat = 2.0


class SecuritySettings(_Settings):
    """The keys that tokens and stored credentials depend on."""

    secret_key: Annotated[SecretStr, _checked("secret_key")]
    webhook_secret: Annotated[SecretStr, _checked("webhook_secret")]
    encryption_key: Annotated[SecretStr, _checked("encryption_key")]
    # The key before the last rotation: still read, until `tradingbot encryption-key re-encrypt` has run.
    encryption_key_old: Annotated[SecretStr, _checked("encryption_key_old")] | None = None

    @model_validator(mode="after")
    def secrets_differ(self) -> Self:
        given = {name: getattr(self, name) for name in secret_policy.OURS}
        values = {name: value.get_secret_value() for name, value in given.items() if value is not None}
        for same in secret_policy.reused(values, secret_policy.OURS):
            raise ValueError(f"{', '.join(same).upper()} must differ from each other")
        return self


class IntakeSettings(_Settings):
    """How alerts are taken in. TradingView gives up after 3 s, so intake answers before that."""

    webhook_max_bytes: PositiveInt = 64 * 1024
    webhook_timeout: PositiveFloat = 2.5
    # Seconds; less than the shortest bar, whose alert may say the same as that of the bar before.
    webhook_dedup_window: PositiveInt = 30
    # Seconds; older alerts (by `timenow`) are refused, unless the strategy says otherwise.
    webhook_max_age: PositiveInt = 300
    # Seconds that `timenow` may be ahead of our clock.
    webhook_max_skew: PositiveInt = 60
    # Connections to PostgreSQL of each web process that alerts are stored by.
    webhook_connections: Annotated[int, Field(ge=1, le=16)] = 2


class AuthSettings(_Settings):
    """Signing in. Times are in seconds, but for the session's."""

    registration_enabled: bool = False
    access_token_seconds: PositiveInt = 900
    session_days: PositiveInt = 30
    login_attempts: PositiveInt = 5
    login_lockout_seconds: PositiveInt = 900


class EventSettings(_Settings):
    """Live events over WebSocket. Times are in seconds."""

    websocket_ping_interval: PositiveFloat = 20.0
    # Events of a user that a worker keeps for its clients; who is further behind reads from PostgreSQL.
    websocket_queue_size: PositiveInt = 100
    websocket_send_timeout: PositiveFloat = 5.0
    websocket_idle_timeout: PositiveFloat = 3600.0
    websocket_ticket_seconds: Annotated[int, Field(ge=1, le=30)] = 30
    # Connections of one user to one worker.
    websocket_max_per_user: PositiveInt = 20
    events_retention_days: PositiveInt = 30
    events_poll_interval: PositiveFloat = 2.0


class TradingSettings(_Settings):
    """What exchanges may be used."""

    binance_testnet: bool = True
    # Address of the exchange's API instead of its own; for tests.
    exchange_base_url: str | None = None
    exchange_timeout: PositiveFloat = 10.0
    models_dir: Path = Path("models")


class ObservabilitySettings(_Settings):
    """What is reported where. Sentry and notifications are off unless their address is given."""

    sentry_dsn: Annotated[SecretStr, _checked("sentry_dsn")] | None = None
    slow_request_ms: PositiveInt = 1000
    # Where web workers share their counts: a file system in memory, best of all.
    metrics_dir: Path = Path(tempfile.gettempdir())
    # Who may read /metrics at the web port.
    metrics_networks: Annotated[list[IPv4Network | IPv6Network], NoDecode] = PRIVATE_NETWORKS
    # Addresses in Apprise's form, separated by blanks or line ends: they hold credentials.
    notify_urls: Annotated[SecretStr, _checked("notify_urls")] | None = None
    notify_events: Annotated[list[Literal["fill", "refusal", "failure"]], NoDecode] = [
        "fill",
        "refusal",
        "failure",
    ]

    @field_validator("notify_events", "metrics_networks", mode="before")
    @classmethod
    def split(cls, value: Any) -> Any:
        """Accepts `fill,failure`."""
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )


class WorkerSettings(_Settings):
    """How the worker goes about its work. Times are in seconds."""

    worker_concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    worker_poll_interval: PositiveFloat = 1.0
    worker_metrics_port: Annotated[int, Field(ge=0, le=65535)] = 8002
    # How often work that fails for a reason of ours is tried before its signal is given up.
    worker_max_attempts: PositiveInt = 5
    # The first pause after work that failed for now, and the longest; each is twice the one before.
    worker_retry_delay: PositiveFloat = 0.5
    worker_retry_longest: PositiveFloat = 30.0
    # After SIGTERM: for what is being worked on.
    worker_shutdown_timeout: PositiveFloat = 20.0
    # Touched while the worker is alive and PostgreSQL answers it; see `tradingbot health worker`.
    worker_health_file: Path = Path(tempfile.gettempdir()) / "tradingbot-worker.alive"
    worker_health_max_age: PositiveFloat = 60.0
    reconcile_interval: PositiveFloat = 5.0
    # How often positions are compared with what the exchange holds.
    reconcile_positions_interval: PositiveFloat = 60.0


class ServerSettings(_Settings):
    """The web server and what it tells the outside."""

    environment: Literal["production", "staging", "development", "test"] = "production"
    host: str = "0.0.0.0"
    port: Annotated[int, Field(ge=1, le=65535)] = 8001
    workers: Annotated[int, Field(ge=1, le=64)] = 4
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    public_url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$")] = "http://localhost:8001"
    forwarded_allow_ips: str = "127.0.0.1"
    cors_origins: Annotated[list[str], NoDecode] = []
    docs_enabled: bool | None = None
    startup_timeout: PositiveFloat = 60.0
    shutdown_timeout: PositiveInt = 10
    keep_alive_timeout: PositiveInt = 90
    logs_dir: Path = Path("logs")
    cache_dir: Path = Path("cache")

    @property
    def serves_docs(self) -> bool:
        """DOCS_ENABLED; when unset, on everywhere but in production."""
        return self.environment != "production" if self.docs_enabled is None else self.docs_enabled

    @field_validator("log_level", mode="before")
    @classmethod
    def lower_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("public_url")
    @classmethod
    def without_final_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def split_origins(cls, value: Any) -> Any:
        """Accepts `https://a.example,https://b.example` and `["https://a.example"]`."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except ValueError:
                raise ValueError("is not a JSON list, nor origins separated by commas") from None
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("cors_origins")
    @classmethod
    def are_origins(cls, value: list[str]) -> list[str]:
        origins = [origin.rstrip("/") for origin in value]
        for origin in origins:
            if origin != "*" and not secret_policy.is_origin(origin):
                raise ValueError("each entry must be an origin such as https://app.example.org, or *")
        return origins

    @model_validator(mode="after")
    def safe_in_production(self) -> Self:
        if self.environment != "production":
            return self
        if not self.public_url.startswith("https://"):
            raise ValueError(
                "PUBLIC_URL must be the https:// address that senders use when ENVIRONMENT=production"
                " (webhook tokens travel in it); set it, or set ENVIRONMENT=development"
            )
        if "*" in self.cors_origins:
            raise ValueError("CORS_ORIGINS must name its origins when ENVIRONMENT=production, not *")
        return self


class Settings(
    DatabaseSettings,
    RedisSettings,
    SecuritySettings,
    IntakeSettings,
    AuthSettings,
    EventSettings,
    TradingSettings,
    ObservabilitySettings,
    WorkerSettings,
    ServerSettings,
):
    """Everything that the web process and the worker need."""
