package millrace.bench;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;

/** JSON in Kafka, read and written by Jackson as the format of Flink's own {@code flink-json} does. */
final class Json {
    private Json() {}

    /** Reads a topic from its beginning. {@code --kafka HOST:PORT --input TOPIC --bounded true|false}. */
    static <T> KafkaSource<T> source(Arguments arguments, Class<T> type) {
        KafkaSourceBuilder<T> source = KafkaSource.<T>builder()
                .setBootstrapServers(arguments.text("kafka"))
                .setTopics(arguments.text("input"))
                .setGroupId(arguments.text("output"))
                .setProperty("isolation.level", "read_committed")
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setValueOnlyDeserializer(new Reader<>(type));
        if (Boolean.parseBoolean(arguments.text("bounded", "false"))) {
            source.setBounded(OffsetsInitializer.latest());
        }
        return source.build();
    }

    /** Bytes to a record. */
    static final class Reader<T> extends AbstractDeserializationSchema<T> {
        private final Class<T> type;
        private transient ObjectMapper mapper;

        Reader(Class<T> type) {
            super(type);
            this.type = type;
        }

        @Override
        public void open(InitializationContext context) {
            mapper = new ObjectMapper();
        }

        @Override
        public T deserialize(byte[] message) throws IOException {
            return mapper.readValue(message, type);
        }
    }

    /** A record to bytes. */
    static final class Writer<T> implements SerializationSchema<T> {
        private transient ObjectMapper mapper;

        @Override
        public void open(InitializationContext context) {
            mapper = new ObjectMapper();
        }

        @Override
        public byte[] serialize(T record) {
            try {
                return mapper.writeValueAsBytes(record);
            } catch (JsonProcessingException error) {
                throw new UncheckedIOException(error);
            }
        }
    }
}
