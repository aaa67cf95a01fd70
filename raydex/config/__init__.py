"""Every setting, once; flags, RAYDEX_* variables, TOML and docs/settings.md follow.

default < file ([build] or [serve] in sources.toml) < environment < flag  →  BuildConfig / ServeConfig, frozen

    RAYDEX_CRAWL__DELAY_S=1 python build_index.py https://docs.example.org/ --max-pages 200

`tables` are the settings of the build and what both programs have, `serving` those of the service; `resolving` finds
their values.
"""

from raydex.config.resolving import Setting, add_flags, resolve, settings_of
from raydex.config.serving import (
    AccessConfig,
    AnalyticsConfig,
    LimitsConfig,
    ScalingConfig,
    ServeConfig,
    ServeTelemetryConfig,
)
from raydex.config.tables import (
    CODE_VERSION,
    INDEX_NAME,
    RATE,
    BuildConfig,
    ChunkConfig,
    CrawlConfig,
    EmbedConfig,
    GateConfig,
    IndexesConfig,
    StorageConfig,
    TelemetryConfig,
    VectorsConfig,
)

__all__ = [
    "CODE_VERSION",
    "INDEX_NAME",
    "RATE",
    "AccessConfig",
    "AnalyticsConfig",
    "BuildConfig",
    "ChunkConfig",
    "CrawlConfig",
    "EmbedConfig",
    "GateConfig",
    "IndexesConfig",
    "LimitsConfig",
    "ScalingConfig",
    "ServeConfig",
    "ServeTelemetryConfig",
    "Setting",
    "StorageConfig",
    "TelemetryConfig",
    "VectorsConfig",
    "add_flags",
    "resolve",
    "settings_of",
]
