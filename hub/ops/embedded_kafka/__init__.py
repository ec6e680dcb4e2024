"""Apache Kafka embedded in the hub: needs no Docker, no system Java and no administrator.

`start` fetches the jars (first run only), prepares the data folder, runs the broker as a child process on the loopback, and
returns once it answers. `python -m hub.ops.embedded_kafka --data DIR` does the same in the foreground.
"""

from hub.ops.embedded_kafka.broker import BrokerPlan, EmbeddedKafka
from hub.ops.embedded_kafka.classpath import jars

__all__ = ["BrokerPlan", "EmbeddedKafka", "jars"]
