//! Talks to Kafka's transaction coordinators by the protocol itself: librdkafka can't commit a transaction that another
//! producer has begun, such as one of a process that has died.
//!
//! Versions are fixed to ones that Kafka 3.0 and later have. Everything blocks, within limits.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    thread,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DescribeConfigsRequest, DescribeConfigsResponse, DescribeTransactionsRequest,
        DescribeTransactionsResponse, EndTxnRequest, EndTxnResponse, FindCoordinatorRequest, FindCoordinatorResponse,
        InitProducerIdRequest, InitProducerIdResponse, ListTransactionsRequest, ListTransactionsResponse,
        MetadataRequest, MetadataResponse, RequestHeader, ResponseHeader, TransactionalId,
        describe_configs_request::DescribeConfigsResource,
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use millrace_core::{Error, Result};

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// So long what passes is tried again.
const CALL_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_ANSWER: usize = 64 << 20;
const CLIENT_ID: &str = "millrace";
const TRANSACTION_COORDINATOR: i8 = 1;
const BROKER_RESOURCE: i8 = 4;

/// The version of EndTxn that commits here use. It must not be one that makes the producer's epoch move (5): a commit
/// could not be repeated then.
pub(super) const END_TXN_VERSION: i16 = 3;

/// A transaction as its coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub state: String,
    pub producer_id: i64,
    pub producer_epoch: i16,
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with producer {} of epoch {}", self.state, self.producer_id, self.producer_epoch)
    }
}

/// A transactional id that a coordinator knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub id: String,
    /// Whether readers wait for its transaction.
    pub is_open: bool,
}

/// The states of an id in which no transaction is open.
const CLOSED: [&str; 4] = ["Empty", "CompleteCommit", "CompleteAbort", "Dead"];

/// Why a call did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer, or none that is understood.
    Connection(String),
    /// The broker says so.
    Broker(ResponseError),
}

impl Failure {
    fn passes(&self) -> bool {
        use ResponseError as E;
        match self {
            Self::Connection(_) => true,
            Self::Broker(error) => {
                let busy = matches!(error, E::ConcurrentTransactions | E::CoordinatorLoadInProgress);
                busy || matches!(error, E::CoordinatorNotAvailable | E::NotCoordinator | E::RequestTimedOut)
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(why) => f.write_str(why),
            Self::Broker(error) => write!(f, "{error:?} (error {})", error.code()),
        }
    }
}

/// A client of the transaction coordinators of a cluster.
pub(super) struct Coordinators {
    servers: String,
    /// By address.
    connections: BTreeMap<String, Connection>,
    /// Each id's coordinator.
    found: BTreeMap<String, String>,
}

impl Coordinators {
    /// Connects to nothing yet. `servers` are those to ask first.
    pub fn new(servers: &str) -> Self {
        Self { servers: servers.to_string(), connections: BTreeMap::new(), found: BTreeMap::new() }
    }

    /// Ends a transaction; success too if it was ended in this way already.
    pub fn end(&mut self, id: &str, producer_id: i64, epoch: i16, version: i16, commit: bool) -> Result<(), Failure> {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(id))
            .with_producer_id(producer_id.into())
            .with_producer_epoch(epoch)
            .with_committed(commit);
        self.ask_coordinator(id, ApiKey::EndTxn, version, &request, |answer: &EndTxnResponse| answer.error_code)?;
        Ok(())
    }

    /// What the coordinator knows of an id; `None` if nothing.
    pub fn describe(&mut self, id: &str) -> Result<Option<Described>, Failure> {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id(id)]);
        let code =
            |answer: &DescribeTransactionsResponse| answer.transaction_states.first().map_or(0, |s| s.error_code);
        let answer = match self.ask_coordinator(id, ApiKey::DescribeTransactions, 0, &request, code) {
            Err(Failure::Broker(ResponseError::TransactionalIdNotFound)) => return Ok(None),
            answer => answer?,
        };
        Ok(answer.transaction_states.into_iter().next().map(|state| Described {
            state: state.transaction_state.to_string(),
            producer_id: state.producer_id.0,
            producer_epoch: state.producer_epoch,
        }))
    }

    /// Takes an id over: an open transaction is aborted, and whoever else uses the id is fenced.
    pub fn fence(&mut self, id: &str) -> Result<(), Failure> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(id)))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let code = |answer: &InitProducerIdResponse| answer.error_code;
        self.ask_coordinator(id, ApiKey::InitProducerId, 3, &request, code)?;
        Ok(())
    }

    /// All transactional ids that the cluster knows, or only those in these states.
    pub fn list(&mut self, states: &[&'static str]) -> Result<Vec<Listed>, Failure> {
        let states = states.iter().copied().map(StrBytes::from_static_str).collect();
        let request = ListTransactionsRequest::default().with_state_filters(states);
        let mut listed = Vec::new();
        for (_, broker) in self.brokers()? {
            let code = |answer: &ListTransactionsResponse| answer.error_code;
            let answer = self.persist(|_| Ok(broker.clone()), ApiKey::ListTransactions, 0, &request, code)?;
            listed.extend(answer.transaction_states.iter().map(|state| Listed {
                id: state.transactional_id.0.to_string(),
                is_open: !CLOSED.contains(&&*state.transaction_state),
            }));
        }
        Ok(listed)
    }

    /// The brokers of the cluster: id and `host:port`.
    pub fn brokers(&mut self) -> Result<Vec<(i32, String)>, Failure> {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        let give_up = Instant::now() + CALL_LIMIT;
        let answer: MetadataResponse = loop {
            match self.ask_any(ApiKey::Metadata, 9, &request) {
                Err(failure) if failure.passes() && Instant::now() < give_up => thread::sleep(PAUSE),
                answer => break answer?,
            }
        };
        Ok(answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id.0, format!("{}:{}", &*broker.host, broker.port)))
            .collect())
    }

    /// A setting of a broker; `None` if it does not tell.
    pub fn broker_setting(
        &mut self,
        address: &str,
        broker: i32,
        name: &'static str,
    ) -> Result<Option<String>, Failure> {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(BROKER_RESOURCE)
            .with_resource_name(StrBytes::from_string(broker.to_string()))
            .with_configuration_keys(Some(vec![StrBytes::from_static_str(name)]));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let code = |answer: &DescribeConfigsResponse| answer.results.first().map_or(0, |result| result.error_code);
        let to = |_: &mut Self| Ok(address.to_string());
        let answer = self.persist(to, ApiKey::DescribeConfigs, 4, &request, code)?;
        let found = answer.results.into_iter().flat_map(|result| result.configs).next();
        Ok(found.and_then(|config| config.value).map(|value| value.to_string()))
    }

    fn ask_coordinator<A: Decodable>(
        &mut self,
        id: &str,
        api: ApiKey,
        version: i16,
        request: &impl Encodable,
        code: impl Fn(&A) -> i16,
    ) -> Result<A, Failure> {
        self.persist(|this| this.coordinator(id), api, version, request, code)
    }

    /// Asks, and asks again for some time where that may help: a request here has the same effect once and twice.
    fn persist<A: Decodable>(
        &mut self,
        to: impl Fn(&mut Self) -> Result<String, Failure>,
        api: ApiKey,
        version: i16,
        request: &impl Encodable,
        code: impl Fn(&A) -> i16,
    ) -> Result<A, Failure> {
        let give_up = Instant::now() + CALL_LIMIT;
        let mut pause = PAUSE;
        loop {
            let answer = to(self).and_then(|address| {
                let answer: A = self.ask(&address, api, version, request)?;
                checked(code(&answer)).map(|()| answer)
            });
            match answer {
                Err(failure) if failure.passes() && Instant::now() + pause < give_up => {
                    if !matches!(failure, Failure::Broker(ResponseError::ConcurrentTransactions)) {
                        self.found.clear();
                    }
                    thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE * 20);
                }
                answer => return answer,
            }
        }
    }

    /// The address of an id's coordinator.
    fn coordinator(&mut self, id: &str) -> Result<String, Failure> {
        if let Some(address) = self.found.get(id) {
            return Ok(address.clone());
        }
        let request = FindCoordinatorRequest::default()
            .with_key(StrBytes::from_string(id.to_string()))
            .with_key_type(TRANSACTION_COORDINATOR);
        let answer: FindCoordinatorResponse = self.ask_any(ApiKey::FindCoordinator, 3, &request)?;
        checked(answer.error_code)?;
        let address = format!("{}:{}", &*answer.host, answer.port);
        self.found.insert(id.to_string(), address.clone());
        Ok(address)
    }

    /// Asks the first server that answers.
    fn ask_any<A: Decodable>(&mut self, api: ApiKey, version: i16, request: &impl Encodable) -> Result<A, Failure> {
        let mut failure = Failure::Connection("there are no bootstrap servers".into());
        for server in self.servers.clone().split(',').map(str::trim).filter(|server| !server.is_empty()) {
            match self.ask(server, api, version, request) {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn ask<A: Decodable>(
        &mut self,
        address: &str,
        api: ApiKey,
        version: i16,
        request: &impl Encodable,
    ) -> Result<A, Failure> {
        let mut connection = match self.connections.remove(address) {
            Some(connection) => connection,
            None => Connection::open(address)
                .map_err(|error| Failure::Connection(format!("no connection to {address}: {error}")))?,
        };
        let answer = connection.ask(api, version, request).map_err(|error| {
            Failure::Connection(format!("{address} does not answer {api:?} of version {version}: {error}"))
        })?;
        // One that failed is not used again.
        self.connections.insert(address.to_string(), connection);
        Ok(answer)
    }
}

/// The error of a call, for a person.
pub(super) fn failed(what: impl fmt::Display, servers: &str, failure: &Failure) -> Error {
    use ResponseError as E;
    let error = Error::external(format!("{what} failed on Kafka at {servers}: {failure}"));
    match failure {
        Failure::Broker(
            E::TransactionalIdAuthorizationFailed
            | E::ClusterAuthorizationFailed
            | E::UnsupportedVersion
            | E::InvalidTransactionTimeout,
        ) => error.fatal(),
        _ => error,
    }
}

fn checked(code: i16) -> Result<(), Failure> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(Failure::Broker(error)),
    }
}

fn transactional_id(id: &str) -> TransactionalId {
    StrBytes::from_string(id.to_string()).into()
}

struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    fn open(address: &str) -> io::Result<Self> {
        let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
                    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
                    return Ok(Self { stream, correlation: 0 });
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn ask<A: Decodable>(&mut self, api: ApiKey, version: i16, request: &impl Encodable) -> io::Result<A> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        self.correlation = self.correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
        let mut message = BytesMut::new();
        header
            .encode(&mut message, api.request_header_version(version))
            .map_err(|error| invalid(format!("{error:#}")))?;
        request.encode(&mut message, version).map_err(|error| invalid(format!("{error:#}")))?;
        self.stream.write_all(&(message.len() as u32).to_be_bytes())?;
        self.stream.write_all(&message)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > LONGEST_ANSWER {
            return Err(invalid(format!("an answer of {length} bytes")));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, api.response_header_version(version))
            .map_err(|error| invalid(format!("{error:#}")))?;
        if header.correlation_id != self.correlation {
            return Err(invalid(format!("an answer to request {}", header.correlation_id)));
        }
        A::decode(&mut answer, version).map_err(|error| invalid(format!("{error:#}")))
    }
}
