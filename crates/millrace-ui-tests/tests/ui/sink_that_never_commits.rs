use millrace::{
    Result,
    prelude::*,
    sink::{Committer, CommitterContext, NoCommitter, Sink, SinkWriter, WriterContext},
};

struct Transactions;

impl Sink for Transactions {
    type Record = String;
    type Committable = u64;

    fn create_writer(&self, _: &mut WriterContext<u64>) -> Result<Box<dyn SinkWriter<String, u64>>> {
        Ok(Box::new(Writer))
    }

    fn create_committer(&self, _: &CommitterContext) -> Result<Box<dyn Committer<u64>>> {
        Ok(Box::new(NoCommitter))
    }
}

struct Writer;

impl SinkWriter<String, u64> for Writer {
    fn write(&mut self, _: Vec<String>) -> Result<()> {
        Ok(())
    }

    fn prepare_commit(&mut self) -> Result<Vec<u64>> {
        Ok(vec![7])
    }
}

fn main() {
    let env = StreamExecutionEnvironment::new();
    env.from_collection(["a".to_string()]).sink_to(Transactions);
}
