use millrace::prelude::*;

#[derive(Clone, serde::Deserialize)]
struct Point {
    x: i64,
}

fn main() {
    let env = StreamExecutionEnvironment::new();
    let _ = env.from_collection([1, 2, 3]).map(|x| Point { x });
}
