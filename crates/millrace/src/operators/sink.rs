//! The operator of a sink.

use std::sync::Arc;

use millrace_core::{
    Batch, Error, Result,
    ids::InputId,
    sink::{Sink, SinkWriter, WriterContext},
};
use millrace_runtime::operator::{Operator, OperatorContext, OperatorFactory, Output};

/// Makes the writing operators of a sink.
pub(crate) struct SinkFactory<S>(Arc<S>);

impl<S> SinkFactory<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self(Arc::new(sink))
    }
}

impl<S: Sink> OperatorFactory for SinkFactory<S> {
    fn create(&self) -> Box<dyn Operator> {
        Box::new(SinkOperator { sink: Arc::clone(&self.0), writer: None })
    }
}

struct SinkOperator<S: Sink> {
    sink: Arc<S>,
    writer: Option<Box<dyn SinkWriter<S::Record>>>,
}

impl<S: Sink> SinkOperator<S> {
    fn writer(&mut self) -> Result<&mut dyn SinkWriter<S::Record>> {
        match &mut self.writer {
            Some(writer) => Ok(&mut **writer),
            None => Err(Error::internal("a sink was used before it was opened")),
        }
    }
}

impl<S: Sink> Operator for SinkOperator<S> {
    fn open(&mut self, context: &mut OperatorContext) -> Result<()> {
        let mut writer_context = WriterContext {
            subtask: context.subtask,
            parallelism: context.parallelism,
            operator_state: std::mem::take(&mut context.operator_state),
        };
        let writer = self.sink.create_writer(&mut writer_context);
        context.operator_state = writer_context.operator_state;
        self.writer = Some(writer?);
        Ok(())
    }

    fn process(&mut self, _input: InputId, batch: Batch, _out: &mut dyn Output) -> Result<()> {
        self.writer()?.write(batch.into_typed::<S::Record>()?.records)
    }

    fn flush(&mut self) -> Result<()> {
        self.writer()?.flush()
    }

    fn close(&mut self) -> Result<()> {
        self.writer = None;
        Ok(())
    }
}
