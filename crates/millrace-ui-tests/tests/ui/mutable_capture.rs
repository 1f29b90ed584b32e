use millrace::prelude::*;

fn main() {
    let env = StreamExecutionEnvironment::new();
    let mut count = 0;
    env.from_collection([1, 2, 3])
        .map(move |record| {
            count += record;
            count
        })
        .print();
}
