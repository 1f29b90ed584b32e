use std::rc::Rc;

use millrace::prelude::*;

fn main() {
    let env = StreamExecutionEnvironment::new();
    let offset = Rc::new(1);
    env.from_collection([1, 2, 3]).map(move |record| record + *offset).print();
}
