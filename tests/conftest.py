"""What all tests share."""

pytest_plugins = [
    "tests.browser_fixture",
    "tests.kafka_fixture",
    "tests.postgres_fixture",
    "tests.ledger_fixture",
    "tests.systems.redmine_fixture",
]
