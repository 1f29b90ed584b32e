package millrace.bench;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichFlatMapFunction;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.util.Collector;

/** Counts generated strings by key: the same job as {@code examples/src/keyed_count.rs}. */
public final class KeyedCount {
    private KeyedCount() {}

    /** The beginning of the program. {@code --records N --keys K --sink discard|checksum}, and {@link Settings}'. */
    public static void main(String[] args) throws Exception {
        Arguments arguments = new Arguments(args);
        long records = arguments.number("records");
        long keys = arguments.number("keys");
        boolean check = arguments.text("sink", "discard").equals("checksum");
        StreamExecutionEnvironment env = Settings.environment(arguments);
        SingleOutputStreamOperator<Tuple2<String, Long>> counts = env.fromSequence(0, records - 1)
                .map(index -> Keys.key(index, keys))
                .returns(Types.STRING)
                .keyBy(key -> key)
                .flatMap(new Count())
                .name("Count");
        counts.sinkTo(check ? new Checksum() : new DiscardingSink<>());
        long start = System.nanoTime();
        env.execute("keyed count");
        if (check) {
            System.out.println("checksum=" + Long.toUnsignedString(Checksum.SUM.sum()));
        }
        double seconds = (System.nanoTime() - start) / 1e9;
        System.out.printf("records=%d seconds=%.3f rate=%.0f%n", records, seconds, records / seconds);
    }

    /** Counts the records of each key. */
    static final class Count extends RichFlatMapFunction<String, Tuple2<String, Long>> {
        private transient ValueState<Long> count;

        @Override
        public void open(OpenContext context) {
            count = getRuntimeContext().getState(new ValueStateDescriptor<>("count", Types.LONG));
        }

        @Override
        public void flatMap(String key, Collector<Tuple2<String, Long>> out) throws Exception {
            Long before = count.value();
            long now = before == null ? 1 : before + 1;
            count.update(now);
            out.collect(Tuple2.of(key, now));
        }
    }
}
