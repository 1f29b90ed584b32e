package millrace.bench;

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichFlatMapFunction;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.util.Collector;

/** Counts by key, JSON from Kafka to Kafka, exactly once: as {@code benches/src/bin/bench_job/kafka_count.rs}. */
public final class KafkaCount {
    private KafkaCount() {}

    /** {@code --kafka HOST:PORT --input TOPIC --output TOPIC --bounded true|false}, and {@link Settings}'. */
    public static void main(String[] args) throws Exception {
        Arguments arguments = new Arguments(args);
        StreamExecutionEnvironment env = Settings.environment(arguments);
        KafkaSink<Counted> sink = KafkaSink.<Counted>builder()
                .setBootstrapServers(arguments.text("kafka"))
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix(arguments.text("output"))
                // No longer than a broker allows; by default the sink asks for an hour.
                .setProperty("transaction.timeout.ms", "600000")
                .setRecordSerializer(KafkaRecordSerializationSchema.<Counted>builder()
                        .setTopic(arguments.text("output"))
                        .setValueSerializationSchema(new Json.Writer<Counted>())
                        .build())
                .build();
        env.fromSource(Json.source(arguments, Event.class), WatermarkStrategy.noWatermarks(), "records")
                .uid("records")
                .keyBy(event -> event.key)
                .flatMap(new Count())
                .name("Count")
                .uid("count")
                .sinkTo(sink)
                .uid("output");
        env.execute("kafka to kafka");
    }

    /** What is read. */
    public static final class Event {
        public String key;
        public long number;
        public String text;
    }

    /** What is written. */
    public static final class Counted {
        public String key;
        public long count;

        public Counted() {}

        Counted(String key, long count) {
            this.key = key;
            this.count = count;
        }
    }

    /** Counts the records of each key. */
    static final class Count extends RichFlatMapFunction<Event, Counted> {
        private transient ValueState<Long> count;

        @Override
        public void open(OpenContext context) {
            count = getRuntimeContext().getState(new ValueStateDescriptor<>("count", Types.LONG));
        }

        @Override
        public void flatMap(Event event, Collector<Counted> out) throws Exception {
            Long before = count.value();
            long now = before == null ? 1 : before + 1;
            count.update(now);
            out.collect(new Counted(event.key, now));
        }
    }
}
