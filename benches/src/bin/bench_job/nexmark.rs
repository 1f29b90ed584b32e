//! Nexmark's q0, q1 and q2 over the events of nexmark-flink's Kafka table.

use clap::{Args as ClapArgs, ValueEnum};
use millrace::{
    connectors::kafka::{JsonDeserializer, JsonSerializer, StartingOffsets},
    prelude::*,
    sink::DeliveryGuarantee,
};
use serde::{Deserialize, Serialize};

use crate::{Result, kafka_count::Topics};

/// The query, and where to read and write.
#[derive(ClapArgs, Clone)]
pub struct Args {
    /// The query.
    #[arg(long)]
    query: Query,
    /// A job that is bounded writes its results; others throw them away.
    #[command(flatten)]
    topics: Topics,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Query {
    /// Bids as they are.
    Q0,
    /// Prices in another currency.
    Q1,
    /// Bids of some auctions.
    Q2,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Person {
    id: i64,
    name: String,
    email_address: String,
    credit_card: String,
    city: String,
    state: String,
    date_time: String,
    extra: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Auction {
    id: i64,
    item_name: String,
    description: String,
    initial_bid: i64,
    reserve: i64,
    date_time: String,
    expires: String,
    seller: i64,
    category: i64,
    extra: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bid {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: String,
    url: String,
    date_time: String,
    extra: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Event {
    event_type: i32,
    person: Option<Person>,
    auction: Option<Auction>,
    bid: Option<Bid>,
}

/// A result of q0; of q1 with a price that is a decimal number, as text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PassedBid<P> {
    auction: i64,
    bidder: i64,
    price: P,
    date_time: String,
    extra: String,
}

/// A result of q2.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PricedAuction {
    auction: i64,
    price: i64,
}

/// Runs the query.
pub fn run(args: &Args) -> Result<()> {
    let env = StreamExecutionEnvironment::new();
    let source = KafkaSource::builder()
        .bootstrap_servers(&args.topics.kafka)
        .topics([&args.topics.input])
        .starting_offsets(StartingOffsets::Earliest)
        .deserializer(JsonDeserializer::<Event>::new());
    let source = if args.topics.bounded { source.bounded() } else { source };
    let events = env.from_source(source.build()?, "events").uid("events");
    let bids = events.filter(|event| event.event_type == 2).uid("bids");
    match args.query {
        Query::Q0 => write(args, &bids.flat_map(|event, out| out.extend(event.bid.map(|bid| passed(bid, |p| p)))))?,
        Query::Q1 => {
            write(args, &bids.flat_map(|event, out| out.extend(event.bid.map(|bid| passed(bid, in_euros)))))?;
        }
        Query::Q2 => write(args, &bids.flat_map(|event, out| out.extend(event.bid.and_then(picked))))?,
    }
    env.execute("nexmark")?;
    Ok(())
}

fn passed<P>(bid: Bid, price: impl Fn(i64) -> P) -> PassedBid<P> {
    let Bid { auction, bidder, price: dollars, date_time, extra, .. } = bid;
    PassedBid { auction, bidder, price: price(dollars), date_time, extra }
}

/// `0.908 * price`, exactly.
fn in_euros(price: i64) -> String {
    let thousandths = price * 908;
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

fn picked(bid: Bid) -> Option<PricedAuction> {
    (bid.auction % 123 == 0).then_some(PricedAuction { auction: bid.auction, price: bid.price })
}

fn write<T: millrace::Record>(args: &Args, results: &DataStream<T>) -> Result<()> {
    let results = results.clone().name("Query").uid("query");
    let topics = &args.topics;
    if !topics.bounded {
        results.sink_to(DiscardingSink::new());
        return Ok(());
    }
    let sink = KafkaSink::builder()
        .bootstrap_servers(&topics.kafka)
        .topic(&topics.output)
        .serializer(JsonSerializer)
        .delivery_guarantee(DeliveryGuarantee::ExactlyOnce)
        .transactional_id_prefix(&topics.output);
    results.sink_to(sink.build()?).uid("output");
    Ok(())
}
