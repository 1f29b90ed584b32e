//! PostgreSQL: a sink that keeps a table's rows up to date.

use std::sync::Arc;

use millrace_core::{
    Error, Record, Result,
    error::chain_text,
    sink::{Committer, CommitterContext, NoCommittable, NoCommitter, Sink, SinkWriter, WriterContext},
};
use postgres::{Client, NoTls, Statement, error::SqlState};

pub use postgres::types::ToSql;

/// A value of a row.
pub type Value = Box<dyn ToSql + Sync>;

/// Gives a record's values.
type Values<T> = Arc<dyn Fn(&T) -> Vec<Value> + Send + Sync>;

/// So many records are written in one transaction, unless a checkpoint comes first.
const MAX_BATCH: usize = 1000;

/// Writes each record as a row of a table: one with a new key is inserted, one whose key is there updates the row.
///
/// It is idempotent: what is written again after a failure leaves the table as it was, so that with at least once, the
/// default of checkpoints and the only guarantee there is here, each record has its effect once. Between a failure and
/// the end of what is written again, a row may go back to an older value.
///
/// The table must have a primary key or a unique index on the key columns, exactly. All records of a key must come to the
/// same subtask, as they do behind a `key_by` with that key: two that write the same rows would wait for each other.
///
/// ```
/// use millrace_connectors::postgres::PostgresSink;
///
/// # fn main() -> millrace_core::Result<()> {
/// let sink = PostgresSink::upsert("postgres://user@localhost/shop", "counts", ["word"], ["count"], |record| {
///     let (word, count): &(String, i64) = record;
///     vec![Box::new(word.clone()), Box::new(*count)]
/// })?;
/// # let _ = sink;
/// # Ok(())
/// # }
/// ```
pub struct PostgresSink<T> {
    config: postgres::Config,
    table: String,
    sql: String,
    /// The same without any row.
    check: String,
    columns: usize,
    values: Values<T>,
    max_batch: usize,
}

impl<T: Record> PostgresSink<T> {
    /// A sink to `table` (or `schema.table`) of the database at `url`. `values` gives a record's values: those of the
    /// `key` columns first, then those of the `other` columns. Connections are not encrypted.
    pub fn upsert<const K: usize, const C: usize>(
        url: &str,
        table: &str,
        key: [&str; K],
        other: [&str; C],
        values: impl Fn(&T) -> Vec<Value> + Send + Sync + 'static,
    ) -> Result<Self> {
        let invalid = |what: String| Error::invalid(format!("the PostgreSQL sink {what}"));
        let config = url.parse().map_err(|error: postgres::Error| {
            invalid(format!("has a URL that is not understood: {}", chain_text(&error)))
        })?;
        if K == 0 {
            return Err(invalid(
                "has no key columns: without a key, what is written again would be there twice".into(),
            ));
        }
        let names: Vec<&str> = key.into_iter().chain(other).collect();
        if let Some(empty) = names.iter().chain([&table]).find(|name| name.is_empty() || name.contains('\0')) {
            return Err(invalid(format!("has a table or column with the name {empty:?}")));
        }
        let places: Vec<_> = (1..=names.len()).map(|place| format!("${place}")).collect();
        let sql = upsert_sql(table, &key, &other, &format!("VALUES ({})", places.join(", ")));
        let nothing = format!("SELECT {} WHERE FALSE", vec!["NULL"; names.len()].join(", "));
        let check = upsert_sql(table, &key, &other, &nothing);
        let (table, values): (_, Values<T>) = (table.to_string(), Arc::new(values));
        Ok(Self { config, table, sql, check, columns: names.len(), values, max_batch: MAX_BATCH })
    }

    /// How many records are written in one transaction at most; 1000 by default.
    pub fn max_batch(mut self, records: usize) -> Self {
        self.max_batch = records.max(1);
        self
    }
}

/// The statement that inserts rows or updates them.
fn upsert_sql(table: &str, key: &[&str], other: &[&str], rows: &str) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let list = |names: &[&str]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let table = table.split('.').map(quoted).collect::<Vec<_>>().join(".");
    let all = [key, other].concat();
    let updates: Vec<_> = other.iter().map(|name| format!("{0} = excluded.{0}", quoted(name))).collect();
    let action = if updates.is_empty() { "NOTHING".into() } else { format!("UPDATE SET {}", updates.join(", ")) };
    format!("INSERT INTO {table} ({}) {rows} ON CONFLICT ({}) DO {action}", list(&all), list(key))
}

impl<T: Record> Sink for PostgresSink<T> {
    type Record = T;
    type Committable = NoCommittable;

    fn create_writer(&self, _context: &mut WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        let failed = |error: &postgres::Error| failed(&self.table, "connecting", error);
        let mut client = self.config.connect(NoTls).map_err(|error| failed(&error))?;
        // Table, columns, their unique index and our rights: what is wrong with them is said at the start.
        client.execute(&self.check, &[]).map_err(|error| failed(&error))?;
        let statement = client.prepare(&self.sql).map_err(|error| failed(&error))?;
        if statement.params().len() != self.columns {
            return Err(Error::internal(format!("{} takes {} values", self.sql, statement.params().len())));
        }
        let (table, values) = (self.table.clone(), Arc::clone(&self.values));
        Ok(Box::new(PostgresWriter { client, statement, table, values, rows: Vec::new(), max_batch: self.max_batch }))
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<NoCommittable>>> {
        Ok(Box::new(NoCommitter))
    }
}

struct PostgresWriter<T> {
    client: Client,
    statement: Statement,
    table: String,
    values: Values<T>,
    rows: Vec<Vec<Value>>,
    max_batch: usize,
}

impl<T> PostgresWriter<T> {
    /// Writes the rows in one transaction, in their order.
    fn flush(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut write = || -> Result<(), postgres::Error> {
            let mut transaction = self.client.transaction()?;
            for row in &self.rows {
                let row: Vec<&(dyn ToSql + Sync)> = row.iter().map(|value| &**value).collect();
                transaction.execute(&self.statement, &row)?;
            }
            transaction.commit()
        };
        write().map_err(|error| failed(&self.table, "writing", &error))?;
        self.rows.clear();
        Ok(())
    }
}

impl<T: Record> SinkWriter<T> for PostgresWriter<T> {
    fn write(&mut self, records: Vec<T>) -> Result<()> {
        for record in &records {
            let row = (self.values)(record);
            let columns = self.statement.params().len();
            if row.len() != columns {
                return Err(Error::invalid(format!(
                    "a record for table {} has {} values, and the PostgreSQL sink {columns} columns",
                    self.table,
                    row.len()
                )));
            }
            self.rows.push(row);
            if self.rows.len() >= self.max_batch {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn prepare_commit(&mut self) -> Result<Vec<NoCommittable>> {
        self.flush()?;
        Ok(Vec::new())
    }
}

fn failed(table: &str, what: &str, error: &postgres::Error) -> Error {
    let text = chain_text(error);
    let failed = Error::external(format!("{what} to table {table} in PostgreSQL failed: {text}"));
    // What only a change of the program, the table or the rights can mend.
    let class = error.code().map_or("", SqlState::code).get(..2).unwrap_or_default();
    match class {
        "22" | "23" | "28" | "42" | "3D" | "3F" => failed.fatal(),
        _ => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_inserted_or_updated_and_names_are_quoted() {
        assert_eq!(
            upsert_sql("shop.counts", &["word", "day"], &["count"], "VALUES ($1, $2, $3)"),
            "INSERT INTO \"shop\".\"counts\" (\"word\", \"day\", \"count\") VALUES ($1, $2, $3) \
             ON CONFLICT (\"word\", \"day\") DO UPDATE SET \"count\" = excluded.\"count\""
        );
        assert_eq!(
            upsert_sql("a\"b", &["k"], &[], "VALUES ($1)"),
            "INSERT INTO \"a\"\"b\" (\"k\") VALUES ($1) ON CONFLICT (\"k\") DO NOTHING"
        );
    }

    #[test]
    fn senseless_settings_are_refused() {
        let sink = |url: &str, table: &str| {
            PostgresSink::<i64>::upsert(url, table, ["k"], ["v"], |record| vec![Box::new(*record), Box::new(*record)])
        };
        assert!(sink("postgres://u@h/d", "t").is_ok());
        for (url, table, part) in [("nonsense", "t", "URL"), ("postgres://u@h/d", "", "\"\"")] {
            let error = sink(url, table).err().unwrap();
            assert!(!error.retryable && error.message.contains(part), "{error:?}");
        }
        let keyless = PostgresSink::<i64>::upsert("postgres://u@h/d", "t", [], ["v"], |_| vec![]);
        assert!(keyless.err().unwrap().message.contains("key columns"));
    }
}
