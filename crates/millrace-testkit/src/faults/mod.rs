//! Faults from outside of the processes that they hit: between them ([`TcpProxy`]), between them and their object store
//! ([`StoreProxy`]), on their disk ([`SmallDisk`]) and in their clock ([`FakeClock`]). None needs a special build.

mod clock;
mod disk;
mod store_proxy;
mod tcp_proxy;

use std::sync::OnceLock;

use tokio::runtime::Runtime;

pub use clock::FakeClock;
pub use disk::SmallDisk;
pub use store_proxy::{StoreFault, StoreProxy};
pub use tcp_proxy::TcpProxy;

/// The thread that all proxies of a process run on.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a runtime can be made")
    })
}
