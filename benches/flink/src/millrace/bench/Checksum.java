package millrace.bench;

import java.nio.charset.StandardCharsets;
import java.util.concurrent.atomic.LongAdder;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.api.java.tuple.Tuple2;

/** Adds up what it gets, in whatever order: the other contender's job does the same, and the sums are compared. */
final class Checksum implements Sink<Tuple2<String, Long>> {
    static final LongAdder SUM = new LongAdder();

    @Override
    public SinkWriter<Tuple2<String, Long>> createWriter(WriterInitContext context) {
        return new SinkWriter<>() {
            @Override
            public void write(Tuple2<String, Long> element, Context context) {
                SUM.add(of(element.f0, element.f1));
            }

            @Override
            public void flush(boolean endOfInput) {}

            @Override
            public void close() {}
        };
    }

    /** FNV-1a of the key, mixed with the count. */
    static long of(String key, long count) {
        long hash = 0xCBF29CE484222325L;
        for (byte one : key.getBytes(StandardCharsets.UTF_8)) {
            hash = (hash ^ (one & 0xFF)) * 0x100000001B3L;
        }
        return Keys.mix(hash + count);
    }
}
