"""What all tests share."""

import structlog
from hypothesis import settings

pytest_plugins = [
    "tests.left_out",
    "tests.browser_fixture",
    "tests.kafka_fixture",
    "tests.postgres_fixture",
    "tests.ledger_fixture",
    "tests.systems.redmine_fixture",
]

settings.register_profile("any machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any machine")

# A box drawn around every frame of an expected error can take longer than the test that expects it.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)
