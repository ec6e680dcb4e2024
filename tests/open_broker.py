"""An embedded broker that asks nobody who they are, as those of older versions did."""

from __future__ import annotations

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from hub.ops.embedded_kafka import EmbeddedKafka

OURS = ("listener.security", "listener.name", "sasl.", "authorizer.", "super.users")


class OpenBroker(EmbeddedKafka):
    """For the race, most of whose contenders are programs of others, and for what happens to the folder of an older version."""

    def _settings(self, controller: int) -> str:
        signed = super()._settings(controller).splitlines(keepends=True)
        kept = [line for line in signed if not line.startswith(OURS)]
        return "".join([*kept, "listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"])

    def _is_up(self) -> bool:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=5).brokers)
        except KafkaException:
            return False

    def _admit(self) -> None:
        """Everybody is."""
