package millrace.bench;

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichFlatMapFunction;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.util.Collector;

/** Counts keys from Kafka, with a payload each: the same job as {@code benches/src/bin/recovery_job.rs}. */
public final class Recovery {
    private Recovery() {}

    /** {@code --kafka HOST:PORT --input TOPIC --output TOPIC --payload BYTES --sample N}; the rest is configuration. */
    public static void main(String[] args) throws Exception {
        Arguments arguments = new Arguments(args);
        int payload = (int) arguments.number("payload");
        long sample = arguments.number("sample");
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
        KafkaSource<String> source = KafkaSource.<String>builder()
                .setBootstrapServers(arguments.text("kafka"))
                .setTopics(arguments.text("input"))
                .setGroupId(arguments.text("output"))
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setValueOnlyDeserializer(new SimpleStringSchema())
                .build();
        KafkaSink<String> sink = KafkaSink.<String>builder()
                .setBootstrapServers(arguments.text("kafka"))
                .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                .setRecordSerializer(KafkaRecordSerializationSchema.builder()
                        .setTopic(arguments.text("output"))
                        .setValueSerializationSchema(new SimpleStringSchema())
                        .build())
                .build();
        env.fromSource(source, WatermarkStrategy.noWatermarks(), "records")
                .uid("records")
                .keyBy(key -> key)
                .flatMap(new Count(payload, sample))
                .name("Count")
                .uid("count")
                .sinkTo(sink)
                .name("Output")
                .uid("output");
        env.execute("recovery");
    }

    /** Counts the records of each key. */
    static final class Count extends RichFlatMapFunction<String, String> {
        private final int size;
        private final long sample;
        private transient ValueState<Tuple2<Long, byte[]>> state;

        Count(int size, long sample) {
            this.size = size;
            this.sample = sample;
        }

        @Override
        public void open(OpenContext context) {
            TypeInformation<Tuple2<Long, byte[]>> type =
                    Types.TUPLE(Types.LONG, Types.PRIMITIVE_ARRAY(Types.BYTE));
            state = getRuntimeContext().getState(new ValueStateDescriptor<>("counted", type));
        }

        @Override
        public void flatMap(String key, Collector<String> out) throws Exception {
            long number = Long.parseLong(key.substring("key-".length()));
            Tuple2<Long, byte[]> counted = state.value();
            if (counted == null) {
                counted = Tuple2.of(0L, payload(number, size));
            }
            // A new one: the heap backend may be writing the old one into a checkpoint.
            counted = Tuple2.of(counted.f0 + 1, counted.f1);
            state.update(counted);
            if (number % sample == 0) {
                out.collect(key + "," + counted.f0);
            }
        }
    }

    /** Bytes that differ from key to key, and do not compress to nothing. */
    private static byte[] payload(long number, int size) {
        long seed = number * 0x9E3779B97F4A7C15L | 1;
        byte[] payload = new byte[size];
        for (int i = 0; i < size; i++) {
            seed ^= seed << 13;
            seed ^= seed >>> 7;
            seed ^= seed << 17;
            payload[i] = (byte) seed;
        }
        return payload;
    }
}
