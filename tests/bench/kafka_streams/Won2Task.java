import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.regex.Pattern;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * won2task on Kafka Streams: the processor API, JSON by Jackson, cases in a store in memory with caching and a changelog.
 *
 * <p>Arguments: bootstrap, application, folder, guarantee (at_least_once or exactly_once_v2), threads,
 * milliseconds between commits. Topics are named after the application. Runs until SIGTERM.
 */
public final class Won2Task {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String STORE = "cases";
    private static final int RECENT = 16;
    private static final List<String> COMMANDS =
            List.of("project.create", "task.create", "task.create", "task.create", "message.send");

    private Won2Task() {}

    public static void main(String[] arguments) {
        String application = arguments[1];
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[2]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, arguments[3]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments[4]);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, arguments[5]);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        KafkaStreams streams = new KafkaStreams(topology(application), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    private static Topology topology(String application) {
        Serde<String> text = Serdes.String();
        Serde<byte[]> bytes = Serdes.ByteArray();
        Topology topology = new Topology();
        topology.addSource("events", text.deserializer(), bytes.deserializer(), application + "-events");
        topology.addProcessor("fold", Fold::new, "events");
        topology.addStateStore(
                Stores.keyValueStoreBuilder(
                                Stores.inMemoryKeyValueStore(STORE), text, Serdes.serdeFrom(
                                        (topic, each) -> written(each), (topic, each) -> each == null ? null : read(each, Case.class)))
                        .withCachingEnabled(),
                "fold");
        topology.addSink("views", application + "-views", text.serializer(), bytes.serializer(), "fold");
        topology.addSink("commands", application + "-commands", text.serializer(), bytes.serializer(), "fold");
        return topology;
    }

    private static <T> T read(byte[] json, Class<T> type) {
        try {
            return JSON.readValue(json, type);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static byte[] written(Object value) {
        try {
            return JSON.writeValueAsBytes(value);
        } catch (JsonProcessingException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** Folds an event into its case, and sends the view and what is asked for. */
    private static final class Fold implements Processor<String, byte[], String, byte[]> {
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, Case> cases;

        @Override
        public void init(ProcessorContext<String, byte[]> given) {
            context = given;
            cases = given.getStateStore(STORE);
        }

        @Override
        public void process(Record<String, byte[]> record) {
            Event event = read(record.value(), Event.class).checked();
            Case before = cases.get(record.key());
            if (before != null && before.seen.contains(event.id)) {
                return;
            }
            Case after = Case.after(before == null ? new Case() : before, event);
            cases.put(record.key(), after);
            context.forward(record.withKey(event.subject).withValue(written(after.view(event))), "views");
            for (Map<String, Object> command : commands(event)) {
                context.forward(record.withValue(written(command)), "commands");
            }
        }
    }

    /** A fact, as CloudEvents has it. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    public static final class Event {
        private static final Pattern TYPE = Pattern.compile("^[a-z][a-z0-9]*(\\.[a-z][a-z0-9_]*){2,4}$");
        private static final Pattern REFERENCE = Pattern.compile("^[a-z][a-z0-9_-]*/[^\\s/]+(/\\S.*)?$");
        private static final Pattern STAMP =
                Pattern.compile("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z$");
        private static final Pattern SEQUENCE = Pattern.compile("^[0-9]{1,19}$");

        public String specversion;
        public String id;
        public String source;
        public String type;
        public String subject;
        public String time;
        public String recordedtime;
        public String dataschema;
        public String datacontenttype;
        public String partitionkey;
        public String correlationid;
        public String subjectversion;
        public String sequence;
        public String outbox;
        public Map<String, Object> data;

        Event checked() {
            require("1.0".equals(specversion) && "application/json".equals(datacontenttype));
            require(named(id) && named(source) && named(dataschema) && named(outbox) && named(subjectversion));
            require(fits(TYPE, type) && fits(REFERENCE, subject) && fits(REFERENCE, partitionkey));
            require(fits(REFERENCE, correlationid) && fits(STAMP, time) && fits(STAMP, recordedtime));
            require(fits(SEQUENCE, sequence) && data != null);
            return this;
        }

        private static boolean named(String value) {
            return value != null && !value.isEmpty() && value.length() <= 400;
        }

        private static boolean fits(Pattern pattern, String value) {
            return value != null && pattern.matcher(value).matches();
        }

        private static void require(boolean holds) {
            if (!holds) {
                throw new IllegalArgumentException("not an event");
            }
        }
    }

    /** What is remembered of a case. */
    public static final class Case {
        public List<String> seen = new ArrayList<>();
        public String stage;
        public String version;
        public String time;
        public Map<String, Object> data = new HashMap<>();

        static Case after(Case before, Event event) {
            Case after = new Case();
            int from = Math.max(0, before.seen.size() + 1 - RECENT);
            after.seen.addAll(before.seen.subList(from, before.seen.size()));
            after.seen.add(event.id);
            after.stage = event.type.substring(event.type.lastIndexOf('.') + 1);
            after.version = event.subjectversion;
            after.time = event.time;
            after.data.putAll(before.data);
            after.data.putAll(event.data);
            return after;
        }

        Map<String, Object> view(Event event) {
            Map<String, Object> view = new LinkedHashMap<>();
            view.put("subject", event.subject);
            view.put("case", event.partitionkey);
            view.put("event", event.id);
            view.put("seen", seen);
            view.put("stage", stage);
            view.put("version", version);
            view.put("time", time);
            view.put("data", data);
            return view;
        }
    }

    private static List<Map<String, Object>> commands(Event event) {
        List<Map<String, Object>> commands = new ArrayList<>();
        if (!event.type.equals("crm.opportunity.won")
                || new BigDecimal(event.data.get("amount").toString()).compareTo(BigDecimal.valueOf(100_000)) < 0) {
            return commands;
        }
        for (int at = 0; at < COMMANDS.size(); at++) {
            Map<String, Object> command = new LinkedHashMap<>();
            command.put("id", derivedId("command", "won-deal-to-delivery", event.subject, event.id, String.valueOf(at)));
            command.put("type", COMMANDS.get(at));
            command.put("instance", "pm");
            command.put("case", event.partitionkey);
            command.put("time", event.time);
            command.put("causationid", event.id);
            command.put("subject", event.subject);
            command.put("rule", "won-deal-to-delivery");
            command.put("title", Map.of("zh", "赢单自动立项", "en", "A won deal becomes a delivery project"));
            command.put("arguments", Map.of("name", "交付 " + event.data.get("name"), "customer", event.data.get("account")));
            command.put("position", at);
            commands.add(command);
        }
        return commands;
    }

    /** The uuid5 of these parts, as the product derives it. */
    private static String derivedId(String... parts) {
        UUID space = UUID.fromString("6b7f2f0a-2c64-5d0e-9a6e-0b2f6c1d8e11");
        try {
            MessageDigest sha1 = MessageDigest.getInstance("SHA-1");
            sha1.update(ByteBuffer.allocate(16).putLong(space.getMostSignificantBits()).putLong(space.getLeastSignificantBits()).array());
            ByteBuffer digest = ByteBuffer.wrap(sha1.digest(String.join("|", parts).getBytes(StandardCharsets.UTF_8)));
            long high = digest.getLong() & ~0xF000L | 0x5000L;
            long low = digest.getLong() & 0x3FFFFFFFFFFFFFFFL | 0x8000000000000000L;
            return new UUID(high, low).toString();
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }
}
