//! A table of PostgreSQL that a job keeps up to date: a row for each key, with its last output.

use std::{collections::HashMap, thread, time::Duration};

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
        let sql = format!("CREATE TABLE \"{}\" (key TEXT PRIMARY KEY, value TEXT NOT NULL)", table.name);
        table.connect()?.batch_execute(&sql).map_err(|error| table.failed(&error))?;
        Ok(table)
    }

    /// What the job is told.
    pub fn argument(&self) -> String {
        format!("{}#{}", self.url, self.name)
    }

    /// Its rows: one value for each key.
    pub fn rows(&self) -> Result<Outputs> {
        let rows = self.read(&mut self.connect()?)?;
        Ok(rows.into_iter().map(|(key, value)| (key, vec![value])).collect())
    }

    /// Gives the rows that have changed since the last look. While the server is away none have.
    pub fn follow(&self) -> Follower {
        let (table, mut known, mut client) = (self.clone(), HashMap::new(), None);
        Box::new(move || {
            // The pace of looking.
            thread::sleep(LOOK);
            let connected = client.take().map_or_else(|| table.connect(), Ok);
            let Ok((connected, rows)) = connected.and_then(|mut client| {
                let rows = table.read(&mut client)?;
                Ok((client, rows))
            }) else {
                return Ok(Vec::new());
            };
            client = Some(connected);
            let is_new =
                |(key, value): &(String, String)| known.insert(key.clone(), value.clone()).as_ref() != Some(value);
            Ok(rows.into_iter().filter(is_new).collect())
        })
    }

    fn connect(&self) -> Result<Client> {
        let mut config: postgres::Config = self.url.parse()?;
        config.connect_timeout(CONNECT_LIMIT).connect(NoTls).map_err(|error| self.failed(&error))
    }

    fn read(&self, client: &mut Client) -> Result<Vec<(String, String)>> {
        let sql = format!("SELECT key, value FROM \"{}\"", self.name);
        let rows = client.query(&sql, &[]).map_err(|error| self.failed(&error))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
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
    fn what_changes_is_followed_past_the_servers_death_and_a_wrong_row_is_found() {
        let mut server = PostgresServer::start().unwrap();
        let table = Table::create(server.url(), "a-table".into()).unwrap();
        let write = |key: &str, value: &str| {
            let sql = "INSERT INTO \"a-table\" VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            table.connect().unwrap().execute(sql, &[&key, &value]).unwrap();
        };
        let mut follow = table.follow();
        write("a", "1");
        let row = |value: &str| vec![("a".to_owned(), value.to_owned())];
        assert_eq!(follow().unwrap(), row("1"));
        assert_eq!(follow().unwrap(), []);
        server.kill().unwrap();
        assert_eq!(follow().unwrap(), []);
        server.restart().unwrap();
        write("a", "2");
        assert_eq!(follow().unwrap(), row("2"));

        let expected = |value: &str| Outputs::from([("a".to_owned(), vec![value.to_owned()])]);
        let verdict = |value| compare(&expected(value), &table.rows().unwrap(), Guarantee::ExactlyOnce).unwrap();
        assert!(verdict("2").is_right());
        assert_eq!((verdict("3").lost, verdict("3").duplicated), (1, 1), "an older value in the place of the last");
        write("b", "1");
        assert_eq!((verdict("2").lost, verdict("2").duplicated), (0, 1));
    }
}
