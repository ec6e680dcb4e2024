"""What all tests share."""

from hypothesis import settings

pytest_plugins = [
    "tests.browser_fixture",
    "tests.kafka_fixture",
    "tests.postgres_fixture",
    "tests.ledger_fixture",
    "tests.systems.redmine_fixture",
]

settings.register_profile("any machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any machine")
