//! The operator of a sink.

use millrace_core::{
    Batch, Error, Record, Result,
    ids::InputId,
    sink::{Sink, SinkWriter, WriterContext},
};
use millrace_runtime::operator::{Operator, OperatorContext, OperatorFactory, Output};

use std::sync::Arc;

/// Makes the writing operators of a sink.
pub(crate) struct SinkFactory<S>(Arc<S>);

impl<S> SinkFactory<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self(Arc::new(sink))
    }
}

impl<S: Sink> OperatorFactory for SinkFactory<S> {
    fn create(&self) -> Box<dyn Operator> {
        Box::new(SinkOperator { sink: Arc::clone(&self.0), name: String::new(), writer: None })
    }
}

struct SinkOperator<S: Sink> {
    sink: Arc<S>,
    name: String,
    writer: Option<Box<dyn SinkWriter<S::Record>>>,
}

impl<S: Sink> SinkOperator<S> {
    fn with_writer(&mut self, act: impl FnOnce(&mut dyn SinkWriter<S::Record>) -> Result<()>) -> Result<()> {
        let Some(writer) = &mut self.writer else {
            return Err(Error::internal(format!("sink {:?} is used before it is open", self.name)));
        };
        act(&mut **writer).map_err(|error| error.context(format!("sink {:?}", self.name)))
    }
}

impl<S: Sink> Operator for SinkOperator<S>
where
    S::Record: Record,
{
    fn open(&mut self, context: &mut OperatorContext) -> Result<()> {
        self.name.clone_from(&context.name);
        let mut writer_context = WriterContext {
            subtask: context.subtask,
            parallelism: context.parallelism,
            operator_state: std::mem::take(&mut context.operator_state),
        };
        let writer = self.sink.create_writer(&mut writer_context);
        context.operator_state = writer_context.operator_state;
        self.writer = Some(writer.map_err(|error| error.context(format!("sink {:?} can't be opened", self.name)))?);
        Ok(())
    }

    fn process(&mut self, _input: InputId, batch: Batch, _out: &mut dyn Output) -> Result<()> {
        let records = batch.into_typed::<S::Record>()?.records;
        self.with_writer(|writer| writer.write(records))
    }

    fn flush(&mut self) -> Result<()> {
        self.with_writer(|writer| writer.flush())
    }

    fn close(&mut self) -> Result<()> {
        self.writer = None;
        Ok(())
    }
}
