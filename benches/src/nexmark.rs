//! Nexmark's queries that take neither event time nor windows nor joins: q0 passes bids on, q1 changes their currency, q2
//! picks some auctions' (`bin/bench_job/nexmark.rs`, and Flink's `NexmarkQuery.java`). Events come from Kafka as JSON, as
//! the table of nexmark-flink has them, made with the generator's official parameters; results go nowhere, as there.

use std::{cell::OnceCell, path::Path, rc::Rc};

use anyhow::{Result, ensure};
use nexmark::{
    EventGenerator,
    config::{NexmarkConfig, RateShape},
    event::Event,
};
use serde_json::{Value, json};

use crate::{
    Arguments,
    case::{Case, Row},
    comparison::Comparison,
    contender::{FlinkJob, MillraceJob, Running},
    kafka::{Input, Topics, first_difference},
};

/// When the first event happens, in milliseconds since the epoch: events are the same in every run.
const BASE_TIME: u64 = 1_600_000_000_000;
/// So many events are made, and come again and again: to make one takes longer than to read it.
const EVENTS: usize = 500_000;
/// More events a second than a query reads.
const PER_SECOND: u64 = 500_000;
const CHECKPOINT: &str = "1s";

struct Query {
    name: &'static str,
    /// All queries read the same events.
    input: Rc<OnceCell<Input>>,
}

/// The queries.
pub fn cases() -> Vec<Box<dyn Case>> {
    let input = Rc::<OnceCell<Input>>::default();
    let query = |name| Box::new(Query { name, input: Rc::clone(&input) }) as Box<dyn Case>;
    ["q0", "q1", "q2"].into_iter().map(query).collect()
}

/// What becomes of the results.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Results {
    /// All are written, and the job ends with the topic.
    Written,
    Discarded,
}

impl Case for Query {
    fn name(&self) -> String {
        format!("nexmark query={} parallelism=1 checkpoint={CHECKPOINT}", self.name)
    }

    fn run(&self, arguments: &Arguments) -> Result<Row> {
        let input = match self.input.get() {
            Some(input) => input,
            None => {
                let events: Vec<_> = generator().take(EVENTS).map(|event| message(&event)).collect();
                let input = Input::new(arguments, PER_SECOND, events.iter().cycle().cloned())?;
                self.input.get_or_init(|| input)
            }
        };
        let mut measured = Comparison::default();
        if let Some(home) = &arguments.flink {
            let ours = input.check(|topics| self.millrace(topics, Results::Written))?;
            let flink = input.check(|topics| self.flink(home, topics, Results::Written))?;
            ensure!(ours == flink, "{}: Millrace has {}", self.name, first_difference(&ours, &flink));
            ensure!(!ours.is_empty(), "{} has no results", self.name);
            measured.flink.push(input.measure(arguments, |topics| self.flink(home, topics, Results::Discarded))?);
        }
        measured.millrace.push(input.measure(arguments, |topics| self.millrace(topics, Results::Discarded))?);
        Ok(measured.row(self.name()))
    }
}

impl Query {
    fn millrace(&self, topics: &Topics, results: Results) -> Result<Running> {
        let job = MillraceJob::new("bench_job")?
            .args(["nexmark", "--query", self.name])
            .args(topics.arguments())
            .state("heap", CHECKPOINT);
        let job = if results == Results::Written { job.args(["--bounded"]) } else { job };
        let read = job.taken_by("Source: events");
        job.start(read)
    }

    fn flink(&self, home: &Path, topics: &Topics, results: Results) -> Result<Running> {
        let job = FlinkJob::new(home, "NexmarkQuery")?
            .args(["--query", self.name, "--parallelism", "1"])
            .args(topics.arguments())
            .args(["--bounded", if results == Results::Written { "true" } else { "false" }])
            .state("heap", CHECKPOINT);
        let read = job.taken_by("Bids");
        job.start(read)
    }
}

/// The official parameters are the crate's defaults, but for the shape of the rate and the time of the first event.
fn generator() -> EventGenerator {
    EventGenerator::new(NexmarkConfig {
        rate_shape: RateShape::Square,
        base_time: BASE_TIME,
        ..NexmarkConfig::default()
    })
}

/// An event as a row of nexmark-flink's table.
fn message(event: &Event) -> String {
    let time = |ms: u64| humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms));
    let row = |number: u8, person: Value, auction: Value, bid: Value| {
        json!({"event_type": number, "person": person, "auction": auction, "bid": bid}).to_string()
    };
    match event {
        Event::Person(of) => row(
            0,
            json!({
                "id": of.id, "name": of.name, "emailAddress": of.email_address, "creditCard": of.credit_card,
                "city": of.city, "state": of.state, "dateTime": time(of.date_time).to_string(), "extra": of.extra,
            }),
            Value::Null,
            Value::Null,
        ),
        Event::Auction(of) => row(
            1,
            Value::Null,
            json!({
                "id": of.id, "itemName": of.item_name, "description": of.description, "initialBid": of.initial_bid,
                "reserve": of.reserve, "dateTime": time(of.date_time).to_string(),
                "expires": time(of.expires).to_string(), "seller": of.seller, "category": of.category,
                "extra": of.extra,
            }),
            Value::Null,
        ),
        Event::Bid(of) => row(
            2,
            Value::Null,
            Value::Null,
            json!({
                "auction": of.auction, "bidder": of.bidder, "price": of.price, "channel": of.channel, "url": of.url,
                "dateTime": time(of.date_time).to_string(), "extra": of.extra,
            }),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_as_the_official_parameters_have_them() {
        let events: Vec<_> = generator().take(5000).collect();
        let of = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
        assert_eq!(of(|event| matches!(event, Event::Person(_))), 100);
        assert_eq!(of(|event| matches!(event, Event::Auction(_))), 300);
        assert_eq!(of(|event| matches!(event, Event::Bid(_))), 4600);
        // 10,000 events a second.
        assert_eq!(events[4999].timestamp() - events[0].timestamp(), 500);
        let bid: Value = serde_json::from_str(&message(&events[4])).unwrap();
        assert_eq!((&bid["event_type"], &bid["person"]), (&json!(2), &Value::Null));
        assert_eq!(bid["bid"]["dateTime"], "2020-09-13T12:26:40.000Z");
    }
}
