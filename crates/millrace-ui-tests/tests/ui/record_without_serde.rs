use millrace::prelude::*;

#[derive(Clone)]
struct Point {
    x: i64,
}

fn main() {
    let env = StreamExecutionEnvironment::new();
    env.from_collection([1, 2, 3]).map(|x| Point { x }).sink_to(DiscardingSink::new());
}
