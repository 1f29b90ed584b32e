use millrace::prelude::*;

#[derive(Clone, Default)]
struct Count {
    count: ValueState<u64>,
}

impl KeyedFlatMapFunction<String, u64> for Count {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.count = context.value_state("count", 0)?;
        Ok(())
    }

    fn flat_map(&mut self, _record: String, out: &mut Collector<u64>) -> FunctionResult {
        out.collect(self.count.get()?);
        Ok(())
    }
}

fn main() {
    let env = StreamExecutionEnvironment::new();
    env.from_collection(["a".to_string()]).flat_map_with(Count::default()).print();
}
