use millrace::prelude::*;

#[derive(Clone, Default)]
struct Count {
    count: ValueState<u64>,
}

impl MapFunction<String, u64> for Count {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
        self.count = context.value_state("count", 0)?;
        Ok(())
    }

    fn map(&mut self, _record: String) -> FunctionResult<u64> {
        Ok(self.count.get()?)
    }
}

fn main() {
    let env = StreamExecutionEnvironment::new();
    env.from_collection(["a".to_string()]).map_with(Count::default()).print();
}
