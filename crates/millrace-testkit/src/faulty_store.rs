//! An object store that misbehaves as it is told to.
//!
//! ```
//! use std::sync::Arc;
//! use millrace_testkit::faulty_store::{Fault, FaultyStore, Operation};
//! use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = FaultyStore::new(Arc::new(InMemory::new()));
//! store.inject(Fault::lost_answer(Operation::Put).on("log/"));
//! let path = Path::from("log/1");
//! assert!(store.put(&path, "x".into()).await.is_err());
//! assert!(store.get(&path).await.is_ok());
//! assert_eq!(store.fired(), 1);
//! # });
//! ```

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt, TryFutureExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart, path::Path,
};
use tokio::sync::Semaphore;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writing an object, also in parts.
    Put,
    /// Reading one.
    Get,
    /// Listing.
    List,
    /// Deleting.
    Delete,
}

/// What goes wrong.
#[derive(Clone, Debug)]
enum Kind {
    Fail,
    LostAnswer,
    Conflict,
    IgnoreCondition,
    Delay(Duration),
    Hold(Arc<Gate>),
}

/// Something that goes wrong with a request. It happens once, unless told otherwise.
#[derive(Clone, Debug)]
pub struct Fault {
    operation: Operation,
    path: String,
    skip: usize,
    times: usize,
    kind: Kind,
}

impl Fault {
    fn new(operation: Operation, kind: Kind) -> Self {
        Self { operation, path: String::new(), skip: 0, times: 1, kind }
    }

    /// The request is not carried out and answered with an error.
    pub fn fail(operation: Operation) -> Self {
        Self::new(operation, Kind::Fail)
    }

    /// The request is carried out and answered with an error.
    pub fn lost_answer(operation: Operation) -> Self {
        Self::new(operation, Kind::LostAnswer)
    }

    /// A put is not carried out and answered as if the object existed (S3's 409).
    pub fn conflict() -> Self {
        Self::new(Operation::Put, Kind::Conflict)
    }

    /// A put overwrites what exists, whatever its condition (a store that does not know `If-None-Match`).
    pub fn ignore_condition() -> Self {
        Self::new(Operation::Put, Kind::IgnoreCondition)
    }

    /// The request is carried out after a while.
    pub fn delay(operation: Operation, delay: Duration) -> Self {
        Self::new(operation, Kind::Delay(delay))
    }

    /// The request is carried out when the gate is opened.
    pub fn hold(operation: Operation, gate: &Arc<Gate>) -> Self {
        Self::new(operation, Kind::Hold(Arc::clone(gate)))
    }

    /// Only for paths that contain this text.
    pub fn on(mut self, path: &str) -> Self {
        self.path = path.to_string();
        self
    }

    /// Lets so many such requests pass first.
    pub fn after(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// Happens so many times.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Happens until [`FaultyStore::heal`].
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }
}

/// Holds requests back until it is opened.
#[derive(Debug)]
pub struct Gate {
    open: Semaphore,
    arrived: Semaphore,
}

impl Gate {
    /// A closed gate.
    pub fn closed() -> Arc<Self> {
        Arc::new(Self { open: Semaphore::new(0), arrived: Semaphore::new(0) })
    }

    /// Waits until a request stands before the gate; each call waits for one more.
    pub async fn arrived(&self) {
        if let Ok(permit) = self.arrived.acquire().await {
            permit.forget();
        }
    }

    /// Lets one request pass, now or when it comes.
    pub fn open_once(&self) {
        self.open.add_permits(1);
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        if let Ok(permit) = self.open.acquire().await {
            permit.forget();
        }
    }
}

/// A store that passes everything on to another, but for the faults that were injected.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    waiting: Mutex<Vec<Fault>>,
    fired: AtomicUsize,
}

impl FaultyStore {
    /// A store without faults yet.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, faults: Arc::default() })
    }

    /// Injects a fault. Where several fit a request, the first one that was injected happens.
    pub fn inject(&self, fault: Fault) {
        self.faults.waiting().push(fault);
    }

    /// Removes all faults that wait.
    pub fn heal(&self) {
        self.faults.waiting().clear();
    }

    /// How many faults have happened: a test that injects some must see that they did.
    pub fn fired(&self) -> usize {
        self.faults.fired.load(Ordering::SeqCst)
    }
}

impl Faults {
    fn waiting(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that happens to a request.
    fn strike(&self, operation: Operation, path: &str) -> Option<Kind> {
        let mut waiting = self.waiting();
        let fits = |fault: &&mut Fault| fault.operation == operation && path.contains(&fault.path);
        let fault = waiting.iter_mut().find(fits)?;
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        fault.times = fault.times.saturating_sub(1);
        let kind = fault.kind.clone();
        waiting.retain(|fault| fault.times > 0);
        self.fired.fetch_add(1, Ordering::SeqCst);
        Some(kind)
    }

    /// Carries a request out, or not, as its fault says.
    async fn run<T>(&self, operation: Operation, path: &str, request: impl Future<Output = Result<T>>) -> Result<T> {
        match self.strike(operation, path) {
            None | Some(Kind::IgnoreCondition) => request.await,
            Some(Kind::Fail) => Err(injected(operation, path)),
            Some(Kind::LostAnswer) => {
                request.await?;
                Err(injected(operation, path))
            }
            Some(Kind::Conflict) => {
                Err(Error::AlreadyExists { path: path.to_string(), source: "injected conflict".into() })
            }
            Some(Kind::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                request.await
            }
            Some(Kind::Hold(gate)) => {
                gate.pass().await;
                request.await
            }
        }
    }
}

fn injected(operation: Operation, path: &str) -> Error {
    Error::Generic { store: "FaultyStore", source: format!("injected fault: {operation:?} {path}").into() }
}

fn shown(prefix: Option<&Path>) -> String {
    prefix.map(ToString::to_string).unwrap_or_default()
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        // The condition belongs to the request: whether it is ignored is known before the request is made.
        let ignores = |fault: &Fault| {
            matches!(fault.kind, Kind::IgnoreCondition) && fault.skip == 0 && location.as_ref().contains(&fault.path)
        };
        if self.faults.waiting().iter().any(ignores) {
            options.mode = object_store::PutMode::Overwrite;
        }
        self.faults.run(Operation::Put, location.as_ref(), self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(FaultyUpload { upload, location: location.clone(), faults: Arc::clone(&self.faults) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.faults.run(Operation::Get, location.as_ref(), self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.faults.run(Operation::Get, location.as_ref(), self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, faults) = (Arc::clone(&self.inner), Arc::clone(&self.faults));
        let delete = move |location: Path| -> BoxFuture<'static, Result<Path>> {
            let (inner, faults) = (Arc::clone(&inner), Arc::clone(&faults));
            async move {
                let one = stream::iter([Ok(location.clone())]).boxed();
                let deleted = async { inner.delete_stream(one).try_collect::<Vec<_>>().await };
                faults.run(Operation::Delete, location.as_ref(), deleted).await?;
                Ok(location)
            }
            .boxed()
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (listing, path, faults) = (self.inner.list(prefix), shown(prefix), Arc::clone(&self.faults));
        list_at_once(listing, path, faults)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let listing = self.inner.list_with_offset(prefix, offset);
        list_at_once(listing, shown(prefix), Arc::clone(&self.faults))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.faults.run(Operation::List, &shown(prefix), self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.faults.run(Operation::Put, to.as_ref(), self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.faults.run(Operation::Put, to.as_ref(), self.inner.rename_opts(from, to, options)).await
    }
}

/// A listing as one request.
fn list_at_once(
    listing: BoxStream<'static, Result<ObjectMeta>>,
    path: String,
    faults: Arc<Faults>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let whole = async move { faults.run(Operation::List, &path, listing.try_collect::<Vec<_>>()).await };
    whole.map_ok(|objects| stream::iter(objects.into_iter().map(Ok))).into_stream().try_flatten().boxed()
}

/// An upload in parts, each of which can go wrong.
#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    location: Path,
    faults: Arc<Faults>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, faults, location) = (self.upload.put_part(data), Arc::clone(&self.faults), self.location.clone());
        async move { faults.run(Operation::Put, location.as_ref(), part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let faults = Arc::clone(&self.faults);
        faults.run(Operation::Put, self.location.as_ref(), self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
