"""Logging for scripts: one line an event on stderr. Modules only ever call logging.getLogger(__name__)."""

import logging
import sys

TELL_SECRETS = ("botocore", "aiobotocore", "s3fs")
"""Below INFO these print requests with their headers, the token of the session among them."""


def configure_logging(*, level: str = "WARNING") -> None:
    """Send log lines of this level and above to stderr."""
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    for name in TELL_SECRETS:
        logging.getLogger(name).setLevel(logging.INFO)
