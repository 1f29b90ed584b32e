package millrace.bench;

import java.math.BigDecimal;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.util.Collector;

/** Nexmark's q0, q1 and q2: as {@code benches/src/bin/bench_job/nexmark.rs}. */
public final class NexmarkQuery {
    private NexmarkQuery() {}

    /** {@code --query q0|q1|q2 --kafka HOST:PORT --input TOPIC --output TOPIC --bounded true|false}. */
    public static void main(String[] args) throws Exception {
        Arguments arguments = new Arguments(args);
        StreamExecutionEnvironment env = Settings.environment(arguments);
        DataStream<Event> bids = env.fromSource(
                        Json.source(arguments, Event.class), WatermarkStrategy.noWatermarks(), "events")
                .uid("events")
                .filter(event -> event.event_type == 2)
                .name("Bids")
                .uid("bids");
        switch (arguments.text("query")) {
            case "q0" -> write(arguments, bids.flatMap(NexmarkQuery::q0).returns(PassedBid.class));
            case "q1" -> write(arguments, bids.flatMap(NexmarkQuery::q1).returns(ConvertedBid.class));
            case "q2" -> write(arguments, bids.flatMap(NexmarkQuery::q2).returns(PricedAuction.class));
            default -> throw new IllegalArgumentException("there are q0, q1 and q2");
        }
        env.execute("nexmark");
    }

    private static void q0(Event event, Collector<PassedBid> out) {
        PassedBid passed = new PassedBid();
        passed.auction = event.bid.auction;
        passed.bidder = event.bid.bidder;
        passed.price = event.bid.price;
        passed.dateTime = event.bid.dateTime;
        passed.extra = event.bid.extra;
        out.collect(passed);
    }

    private static void q1(Event event, Collector<ConvertedBid> out) {
        ConvertedBid converted = new ConvertedBid();
        converted.auction = event.bid.auction;
        converted.bidder = event.bid.bidder;
        // 0.908 * price, exactly.
        converted.price = BigDecimal.valueOf(event.bid.price * 908, 3).toPlainString();
        converted.dateTime = event.bid.dateTime;
        converted.extra = event.bid.extra;
        out.collect(converted);
    }

    private static void q2(Event event, Collector<PricedAuction> out) {
        if (event.bid.auction % 123 == 0) {
            PricedAuction picked = new PricedAuction();
            picked.auction = event.bid.auction;
            picked.price = event.bid.price;
            out.collect(picked);
        }
    }

    private static <T> void write(Arguments arguments, SingleOutputStreamOperator<T> results) {
        results = results.name("Query").uid("query");
        if (!Boolean.parseBoolean(arguments.text("bounded"))) {
            results.sinkTo(new DiscardingSink<>());
            return;
        }
        KafkaSink<T> sink = KafkaSink.<T>builder()
                .setBootstrapServers(arguments.text("kafka"))
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix(arguments.text("output"))
                .setProperty("transaction.timeout.ms", "600000")
                .setRecordSerializer(KafkaRecordSerializationSchema.<T>builder()
                        .setTopic(arguments.text("output"))
                        .setValueSerializationSchema(new Json.Writer<T>())
                        .build())
                .build();
        results.sinkTo(sink).uid("output");
    }

    /** A row of nexmark-flink's table. */
    public static final class Event {
        public int event_type;
        public Person person;
        public Auction auction;
        public Bid bid;
    }

    /** A person. */
    public static final class Person {
        public long id;
        public String name;
        public String emailAddress;
        public String creditCard;
        public String city;
        public String state;
        public String dateTime;
        public String extra;
    }

    /** An auction. */
    public static final class Auction {
        public long id;
        public String itemName;
        public String description;
        public long initialBid;
        public long reserve;
        public String dateTime;
        public String expires;
        public long seller;
        public long category;
        public String extra;
    }

    /** A bid. */
    public static final class Bid {
        public long auction;
        public long bidder;
        public long price;
        public String channel;
        public String url;
        public String dateTime;
        public String extra;
    }

    /** A result of q0. */
    public static final class PassedBid {
        public long auction;
        public long bidder;
        public long price;
        public String dateTime;
        public String extra;
    }

    /** A result of q1. */
    public static final class ConvertedBid {
        public long auction;
        public long bidder;
        public String price;
        public String dateTime;
        public String extra;
    }

    /** A result of q2. */
    public static final class PricedAuction {
        public long auction;
        public long price;
    }
}
