//! A TCP proxy whose connections can be closed, held and delayed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::runtime;
use crate::services::{Result, io_error};

/// The most that is read at once.
const CHUNK: usize = 64 << 10;
/// How many chunks may be on their way in each direction: behind them the sender's own buffers fill up.
const ON_THE_WAY: usize = 16;

/// Stands between two processes: passes on what comes in at a port of its own, until it is told otherwise. Dropping it
/// closes all.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    link: watch::Sender<Link>,
    open: AtomicU64,
    held: AtomicU64,
    delayed: AtomicU64,
}

/// How the connections are.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Those of an earlier epoch are to be closed.
    epoch: u64,
    held: bool,
    delay: Duration,
}

impl TcpProxy {
    /// Listens on a loopback port, and passes on to an address on which nobody need listen yet.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = runtime().block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.map_err(io_error("binding a proxy's port"))?;
        let address = listener.local_addr().map_err(io_error("asking for a proxy's port"))?;
        let shared = Arc::new(Shared {
            target,
            link: watch::Sender::default(),
            open: AtomicU64::new(0),
            held: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
        });
        let accepting = runtime().spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections go through it.
    pub fn connections(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Resets all connections. Returns how many there were.
    pub fn close(&self) -> u64 {
        let open = self.connections();
        self.shared.link.send_modify(|link| link.epoch += 1);
        open
    }

    /// From now on nothing gets through in either direction, though no connection is closed: neither records nor the
    /// end of a connection, nor a new one.
    pub fn hold(&self) {
        self.shared.held.store(0, Ordering::Relaxed);
        self.shared.link.send_modify(|link| link.held = true);
    }

    /// Ends [`hold`](Self::hold): what was sent meanwhile arrives, late. Returns how many pieces were held.
    pub fn release(&self) -> u64 {
        self.shared.link.send_modify(|link| link.held = false);
        self.held()
    }

    /// How many pieces are held, or were the last time.
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// From now on everything takes this much longer; in order, as before. Returns how many pieces were delayed before.
    pub fn delay(&self, delay: Duration) -> u64 {
        self.shared.link.send_modify(|link| link.delay = delay);
        self.shared.delayed.swap(0, Ordering::Relaxed)
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.close();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(pass_on(near, Arc::clone(&shared)));
    }
}

async fn pass_on(near: TcpStream, shared: Arc<Shared>) {
    let mut link = shared.link.subscribe();
    let epoch = link.borrow_and_update().epoch;
    let both = Mutex::new(Vec::from_iter(SockRef::from(&near).try_clone()));
    shared.open.fetch_add(1, Ordering::Relaxed);
    let passing = async {
        let mut link = shared.link.subscribe();
        let _ = link.wait_for(|link| !link.held).await;
        let far = TcpStream::connect(shared.target).await?;
        both.lock().unwrap_or_else(PoisonError::into_inner).extend(SockRef::from(&far).try_clone());
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        // These halves do not end their connection properly when they are dropped.
        let ((near_in, near_out), (far_in, far_out)) = (split(near), split(far));
        tokio::join!(pump(near_in, far_out, &shared), pump(far_in, near_out, &shared));
        Ok::<_, std::io::Error>(())
    };
    tokio::select! {
        // One that can't be made is closed.
        _ = passing => {}
        _ = link.wait_for(|link| link.epoch != epoch) => {
            for socket in both.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let _ = socket.set_linger(Some(Duration::ZERO));
            }
        }
    }
    shared.open.fetch_sub(1, Ordering::Relaxed);
}

/// One direction.
async fn pump(mut from: ReadHalf<TcpStream>, mut to: WriteHalf<TcpStream>, shared: &Shared) {
    let (pieces, mut queue) = mpsc::channel::<(Instant, Bytes)>(ON_THE_WAY);
    let read = async move {
        loop {
            let mut piece = BytesMut::with_capacity(CHUNK);
            match from.read_buf(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(_) if pieces.send((Instant::now(), piece.freeze())).await.is_err() => break,
                Ok(_) => {}
            }
        }
    };
    let write = async move {
        let mut link = shared.link.subscribe();
        loop {
            let next = queue.recv().await;
            if link.borrow().held {
                shared.held.fetch_add(1, Ordering::Relaxed);
            }
            let Ok(delay) = link.wait_for(|link| !link.held).await.map(|link| link.delay) else { break };
            let Some((came, piece)) = next else { break };
            if !delay.is_zero() {
                sleep_until(came + delay).await;
                shared.delayed.fetch_add(1, Ordering::Relaxed);
            }
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
        // The other side is gone, or says no more.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        net::{TcpListener, TcpStream},
        time::Instant,
    };

    use super::*;

    /// The two ends of a connection through a proxy.
    fn connected() -> (TcpProxy, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = TcpProxy::start(listener.local_addr().unwrap()).unwrap();
        let near = TcpStream::connect(proxy.address()).unwrap();
        let (far, _) = listener.accept().unwrap();
        (proxy, near, far)
    }

    fn pass(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) {
        from.write_all(text).unwrap();
        let mut came = vec![0; text.len()];
        to.read_exact(&mut came).unwrap();
        assert_eq!(came, text);
    }

    #[test]
    fn passes_on_in_both_directions_and_says_when_one_has_ended() {
        let (proxy, mut near, mut far) = connected();
        pass(&mut near, &mut far, b"there");
        pass(&mut far, &mut near, b"and back");
        assert_eq!(proxy.connections(), 1);
        drop(far);
        assert_eq!(near.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn what_is_held_is_neither_lost_nor_is_its_connection_closed() {
        let (proxy, mut near, mut far) = connected();
        pass(&mut near, &mut far, b"before");
        proxy.hold();
        near.write_all(b"meanwhile").unwrap();
        far.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(far.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        far.set_read_timeout(None).unwrap();
        assert_eq!(proxy.release(), 1);
        let mut came = [0; 9];
        far.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"meanwhile");
    }

    #[test]
    fn a_delay_is_kept_and_counted() {
        let (proxy, mut near, mut far) = connected();
        proxy.delay(Duration::from_millis(60));
        let started = Instant::now();
        pass(&mut near, &mut far, b"late");
        assert!(started.elapsed() >= Duration::from_millis(60));
        assert_eq!(proxy.delay(Duration::ZERO), 1);
    }

    #[test]
    fn closing_resets_both_sides_and_lets_new_connections_in() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = TcpProxy::start(listener.local_addr().unwrap()).unwrap();
        let mut near = TcpStream::connect(proxy.address()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        pass(&mut near, &mut far, b"before");
        assert_eq!(proxy.close(), 1);
        assert_eq!(near.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(matches!(far.read(&mut [0; 8]), Ok(0) | Err(_)));
        let mut near = TcpStream::connect(proxy.address()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        pass(&mut near, &mut far, b"after");
    }
}
