//! A table of PostgreSQL that a job fills: a row for each output, by its key and its number among the key's.

use std::{thread, time::Duration};

use millrace_core::error::chain_text;
use postgres::{Client, NoTls};

use super::{
    Result,
    checker::Outputs,
    output::{Follower, LOOK},
};

/// A server that is killed and started again is away for less.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The table of one run.
#[derive(Clone)]
pub struct Table {
    url: String,
    name: String,
}

impl Table {
    /// A new one, without rows.
    pub fn create(url: String, name: String) -> Result<Self> {
        let table = Self { url, name };
        let sql = format!(
            "CREATE TABLE \"{}\" (key TEXT, number BIGINT, value TEXT NOT NULL, \
             inserted BIGINT GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (key, number))",
            table.name
        );
        table.connect()?.batch_execute(&sql).map_err(|error| table.failed(&error))?;
        Ok(table)
    }

    /// What the job is told.
    pub fn argument(&self) -> String {
        format!("{}#{}", self.url, self.name)
    }

    /// Its rows, by key and in the order of their numbers.
    pub fn rows(&self) -> Result<Outputs> {
        let sql = format!("SELECT key, value FROM \"{}\" ORDER BY key, number", self.name);
        let rows = self.connect()?.query(&sql, &[]).map_err(|error| self.failed(&error))?;
        let mut outputs = Outputs::new();
        for row in rows {
            outputs.entry(row.get(0)).or_default().push(row.get(1));
        }
        Ok(outputs)
    }

    /// Gives rows that were inserted since the last look. While the server is away none are. Of several that are inserted at
    /// the same time it may miss some: it shows that something comes.
    pub fn follow(&self) -> Follower {
        let (table, mut last, mut client) = (self.clone(), 0, None);
        Box::new(move || {
            // The pace of looking.
            thread::sleep(LOOK);
            let connected = client.take().map_or_else(|| table.connect(), Ok);
            let Ok((connected, rows)) = connected.and_then(|mut client| {
                let rows = table.inserted(&mut client, last)?;
                Ok((client, rows))
            }) else {
                return Ok(Vec::new());
            };
            client = Some(connected);
            last = rows.iter().map(|(inserted, _)| *inserted).max().unwrap_or(last);
            Ok(rows.into_iter().map(|(_, output)| output).collect())
        })
    }

    fn connect(&self) -> Result<Client> {
        let mut config: postgres::Config = self.url.parse()?;
        config.connect_timeout(CONNECT_LIMIT).connect(NoTls).map_err(|error| self.failed(&error))
    }

    fn inserted(&self, client: &mut Client, after: i64) -> Result<Vec<(i64, (String, String))>> {
        let sql = format!("SELECT inserted, key, value FROM \"{}\" WHERE inserted > $1", self.name);
        let rows = client.query(&sql, &[&after]).map_err(|error| self.failed(&error))?;
        Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
    }

    fn failed(&self, error: &postgres::Error) -> Box<dyn std::error::Error + Send + Sync> {
        format!("table {}: {}", self.name, chain_text(error)).into()
    }
}

#[cfg(test)]
mod tests {
    use millrace_testkit::services::postgres::PostgresServer;

    use super::{super::Guarantee, super::checker::compare, *};

    #[test]
    fn what_comes_is_followed_past_the_servers_death_and_what_is_missing_is_found() {
        let mut server = PostgresServer::start().unwrap();
        let table = Table::create(server.url(), "a-table".into()).unwrap();
        let write = |key: &str, number: i64, value: &str| {
            let sql = "INSERT INTO \"a-table\" (key, number, value) VALUES ($1, $2, $3) \
                       ON CONFLICT (key, number) DO UPDATE SET value = excluded.value";
            table.connect().unwrap().execute(sql, &[&key, &number, &value]).unwrap();
        };
        let mut follow = table.follow();
        write("a", 1, "1 x");
        let row = |value: &str| vec![("a".to_owned(), value.to_owned())];
        assert_eq!(follow().unwrap(), row("1 x"));
        assert_eq!(follow().unwrap(), []);
        server.kill().unwrap();
        assert_eq!(follow().unwrap(), []);
        server.restart().unwrap();
        write("a", 1, "1 x");
        write("a", 2, "2 x");
        assert_eq!(follow().unwrap(), row("2 x"), "what is written again is not new");

        let expected = |values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            Outputs::from([("a".to_owned(), values)])
        };
        let verdict = |values| compare(&expected(values), &table.rows().unwrap(), Guarantee::ExactlyOnce).unwrap();
        assert!(verdict(&["1 x", "2 x"]).is_right());
        assert_eq!(verdict(&["1 x", "2 x", "3 x"]).lost, 1);
        assert_eq!((verdict(&["1 x", "2 y"]).lost, verdict(&["1 x", "2 y"]).duplicated), (1, 1), "another value");
        write("b", 1, "1 x");
        assert_eq!(verdict(&["1 x", "2 x"]).duplicated, 1);
    }
}
