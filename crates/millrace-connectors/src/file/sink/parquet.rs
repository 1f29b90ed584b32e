//! Part files in Parquet, by way of Arrow.

use std::sync::Arc;

use arrow_json::{ReaderBuilder, reader::Decoder};
use arrow_schema::{Schema, SchemaRef};
use millrace_core::{Error, FunctionResult, Record, Result, error::chain_text};
use parquet::arrow::ArrowWriter;

use super::format::{FileFormat, PartEncoder};

// What a format is made of, in the version that it takes.
pub use arrow_schema;
pub use parquet::{basic::Compression, file::properties::WriterProperties};

/// So many records become an Arrow batch.
const BATCH: usize = 1024;
/// A row group is kept in memory until it has so many bytes.
const ROW_GROUP_SIZE: usize = 64 << 20;

/// Parquet files, a bulk format: a file is written in row groups of up to 64 MiB and can be read only when it is whole,
/// with its checkpoint. [`FileSink::max_part_size`](super::FileSink::max_part_size) is looked at after each row group.
///
/// A record's fields are those of its serde form, and must be those of the Arrow schema: a record with a field that is
/// not in it, or without one that is not nullable, is an error of the job.
///
/// ```
/// use millrace_connectors::file::{
///     FileSink, Parquet,
///     arrow_schema::{DataType, Field, Schema},
/// };
///
/// #[derive(serde::Serialize, serde::Deserialize, Clone, Debug)]
/// struct Order {
///     id: u64,
///     customer: Option<String>,
/// }
///
/// # fn main() -> millrace_core::Result<()> {
/// let schema = Schema::new(vec![
///     Field::new("id", DataType::UInt64, false),
///     Field::new("customer", DataType::Utf8, true),
/// ]);
/// let sink = FileSink::<Order>::new("s3://bucket/orders", Parquet::new(schema)?)?;
/// # let _ = sink;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Parquet {
    schema: SchemaRef,
    properties: WriterProperties,
}

impl Parquet {
    /// Files of this schema, compressed by Snappy.
    pub fn new(schema: Schema) -> Result<Self> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
        Self::with_properties(schema, properties.set_max_row_group_bytes(Some(ROW_GROUP_SIZE)).build())
    }

    /// Files of this schema, written as these properties say: compression, encodings, statistics, and when a row group,
    /// which is kept in memory, ends.
    pub fn with_properties(schema: Schema, properties: WriterProperties) -> Result<Self> {
        let format = Self { schema: Arc::new(schema), properties };
        if format.schema.fields().is_empty() {
            return Err(Error::invalid("the Parquet format's schema has no fields: name those of the records"));
        }
        // What can't be written is said at the start, and not with the first record.
        let encoder = format.encoder();
        encoder.map_err(|error| Error::invalid(format!("the Parquet format's schema: {}", chain_text(&*error))))?;
        Ok(format)
    }

    fn encoder(&self) -> FunctionResult<ParquetEncoder> {
        let decoder = ReaderBuilder::new(Arc::clone(&self.schema)).with_batch_size(BATCH).with_strict_mode(true);
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&self.schema), Some(self.properties.clone()))?;
        Ok(ParquetEncoder { decoder: decoder.build_decoder()?, writer: Some(writer) })
    }
}

impl<T: Record> FileFormat<T> for Parquet {
    fn extension(&self) -> &str {
        ".parquet"
    }

    fn begin(&self) -> FunctionResult<Box<dyn PartEncoder<T>>> {
        Ok(Box::new(self.encoder()?))
    }
}

struct ParquetEncoder {
    /// Makes batches of records.
    decoder: Decoder,
    /// There until the file is finished.
    writer: Option<ArrowWriter<Vec<u8>>>,
}

impl ParquetEncoder {
    fn write_batch(&mut self) -> FunctionResult {
        if let (Some(batch), Some(writer)) = (self.decoder.flush()?, &mut self.writer) {
            writer.write(&batch)?;
        }
        Ok(())
    }
}

impl<T: Record> PartEncoder<T> for ParquetEncoder {
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> FunctionResult {
        self.decoder.serialize(std::slice::from_ref(record))?;
        if self.decoder.len() >= BATCH {
            self.write_batch()?;
            // What it has written; the row group that is in progress is not there yet.
            out.extend(self.writer.iter_mut().flat_map(|writer| writer.inner_mut().drain(..)));
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> FunctionResult {
        self.write_batch()?;
        if let Some(writer) = self.writer.take() {
            out.append(&mut writer.into_inner()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use arrow_json::ArrayWriter;
    use arrow_schema::{DataType, Field};
    use millrace_core::{
        ids::OperatorUid,
        sink::{CommitterContext, Sink, WriterContext},
    };
    use millrace_testkit::conformance::sink::sink_conformance;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use serde::{Deserialize, Serialize, de::DeserializeOwned};

    use super::{
        super::{FileSink, tests::InDirectory},
        *,
    };

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        id: u64,
        customer: Option<String>,
        prices: Vec<f64>,
    }

    fn row(id: u64) -> Row {
        let customer = (!id.is_multiple_of(3)).then(|| format!("customer-{}", id % 100));
        Row { id, customer, prices: (0..id % 4).map(|item| 0.5 * item as f64).collect() }
    }

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("id", DataType::UInt64, false),
            Field::new("customer", DataType::Utf8, true),
            Field::new("prices", DataType::new_list(DataType::Float64, false), false),
        ])
    }

    fn read<T: DeserializeOwned>(file: Vec<u8>) -> Vec<T> {
        let mut rows = Vec::new();
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(file)).unwrap().build().unwrap() {
            let mut json = ArrayWriter::new(Vec::new());
            json.write(&batch.unwrap()).unwrap();
            json.finish().unwrap();
            rows.extend(serde_json::from_slice::<Vec<T>>(&json.into_inner()).unwrap());
        }
        rows
    }

    #[test]
    fn each_checkpoint_ends_a_file_that_reads_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let sink = FileSink::<Row>::new(&format!("file://{}", dir.path().display()), Parquet::new(schema()).unwrap());
        let sink = sink.unwrap();
        let uid = OperatorUid("files".into());
        let context = CommitterContext { uid: uid.clone(), subtask: 0, parallelism: 1 };
        let mut committer = sink.create_committer(&context).unwrap();
        let mut writer = sink.create_writer(&mut WriterContext::new(uid, 0, 1)).unwrap();
        let mut seen = Vec::new();
        // Less than a batch, several, and none.
        for range in [0..10, 10..5000, 5000..5000, 5000..5001] {
            writer.write(range.clone().map(row).collect()).unwrap();
            committer.commit(&writer.prepare_commit().unwrap()).unwrap();
            for entry in fs::read_dir(dir.path()).unwrap() {
                let path = entry.unwrap().path();
                assert!(path.to_str().unwrap().ends_with(".parquet"), "{path:?}");
                seen.extend(read::<Row>(fs::read(&path).unwrap()));
                fs::remove_file(path).unwrap();
            }
            assert_eq!(seen.len(), range.end as usize, "it is seen when it is committed");
        }
        assert_eq!(seen, (0..5001).map(row).collect::<Vec<_>>());
    }

    /// The suite's records, which are texts, as rows of one column.
    #[derive(Clone)]
    struct OneColumn(Parquet);

    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct OneText {
        text: String,
    }

    impl FileFormat<String> for OneColumn {
        fn extension(&self) -> &str {
            FileFormat::<OneText>::extension(&self.0)
        }

        fn begin(&self) -> FunctionResult<Box<dyn PartEncoder<String>>> {
            Ok(Box::new(OneColumnEncoder(FileFormat::<OneText>::begin(&self.0)?)))
        }
    }

    struct OneColumnEncoder(Box<dyn PartEncoder<OneText>>);

    impl PartEncoder<String> for OneColumnEncoder {
        fn encode(&mut self, record: &String, out: &mut Vec<u8>) -> FunctionResult {
            self.0.encode(&OneText { text: record.clone() }, out)
        }

        fn finish(&mut self, out: &mut Vec<u8>) -> FunctionResult {
            self.0.finish(out)
        }
    }

    #[test]
    fn parquet_files_are_seen_once_wherever_the_job_dies() {
        let format = Parquet::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)])).unwrap();
        let texts = |file| read::<OneText>(file).into_iter().map(|row| row.text).collect();
        sink_conformance(&mut InDirectory::new(OneColumn(format), texts));
    }

    #[test]
    fn a_record_that_does_not_fit_the_schema_is_an_error_that_names_the_field() {
        let with = |fields: Vec<Field>| {
            let mut encoder = Parquet::new(Schema::new(fields)).unwrap().encoder().unwrap();
            let encoded = (0..BATCH as u64).try_for_each(|id| encoder.encode(&row(id), &mut Vec::new()));
            encoded.unwrap_err().to_string()
        };
        let id = Field::new("id", DataType::UInt64, false);
        assert!(with(vec![id.clone()]).contains("customer"));
        let mut fields: Vec<Field> = schema().fields().iter().map(|field| (**field).clone()).collect();
        fields.push(Field::new("country", DataType::Utf8, false));
        assert!(with(fields).contains("country"));
    }

    #[test]
    fn a_schema_that_cannot_be_written_is_refused() {
        let refused = |fields: Vec<Field>| Parquet::new(Schema::new(fields)).unwrap_err();
        assert!(refused(vec![]).message.contains("no fields"));
        let interval = DataType::Interval(arrow_schema::IntervalUnit::MonthDayNano);
        let error = refused(vec![Field::new("lease", interval, false)]);
        assert!(!error.retryable && error.message.contains("Interval"), "{error:?}");
    }
}
