use millrace::{
    Result,
    sink::{Sink, SinkWriter, WriterContext},
};

struct Transactions;

impl Sink for Transactions {
    type Record = String;
    type Committable = u64;

    fn create_writer(&self, _: &mut WriterContext<u64>) -> Result<Box<dyn SinkWriter<String, u64>>> {
        Ok(Box::new(Writer))
    }
}

struct Writer;

impl SinkWriter<String, u64> for Writer {
    fn write(&mut self, _: Vec<String>) -> Result<()> {
        Ok(())
    }
}

fn main() {}
