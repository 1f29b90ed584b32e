//! Free ports for servers that are about to be started.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what Linux gives to outgoing connections and to `bind` with port 0:
/// a port from there could be taken by anyone between being found and being
/// bound, or while a server that is to come back on it is down. Below
/// Kubernetes' node ports, too.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A free port that stays bound, so that nobody else is given it, until
/// [`release`](Self::release).
#[derive(Debug)]
pub struct ReservedPort {
    listener: TcpListener,
    port: u16,
}

impl ReservedPort {
    /// Finds and binds a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When there is none left.
    pub fn new() -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into())
    }

    /// Finds and binds a free port of an address of this machine.
    ///
    /// # Panics
    /// When there is none left, or the address is none of this machine's.
    pub fn on(host: IpAddr) -> Self {
        // Processes start at random places, and a process never tries the same
        // port twice, so that two servers that start at once do not meet.
        static NEXT: OnceLock<AtomicU16> = OnceLock::new();
        let next = NEXT.get_or_init(|| {
            let random = uuid::Uuid::new_v4().as_u128() % u128::from(COUNT);
            AtomicU16::new(random as u16)
        });
        for _ in 0..COUNT {
            let port = FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT;
            if let Ok(listener) = TcpListener::bind((host, port)) {
                return Self { listener, port };
            }
        }
        panic!("no free port of {host} from {FIRST} on");
    }

    /// The port's number, while it stays reserved.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Unbinds the port for the server that is started next.
    pub fn release(self) -> u16 {
        drop(self.listener);
        self.port
    }
}

impl Default for ReservedPort {
    fn default() -> Self {
        Self::new()
    }
}

/// A port of 127.0.0.1 that was free a moment ago and that nobody is given by
/// chance.
pub fn free_port() -> u16 {
    ReservedPort::new().release()
}
