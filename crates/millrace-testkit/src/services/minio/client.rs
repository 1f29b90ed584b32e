//! What a client of a MinIO server knows and asks.

use std::io;
use std::thread;

use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{HttpConnector, HttpError, HttpRequest, ReqwestConnector};
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStore, ObjectStoreExt};
use reqwest::{Method, header};

use super::super::{Result, io_error};

/// MinIO's region, unless it is told another one.
const REGION: &str = "us-east-1";
/// So many objects are read at the same time.
const READS_AT_ONCE: usize = 16;

/// What a client needs to know. It outlives a server that is restarted where it was.
#[derive(Clone, Debug)]
pub struct MinioClient {
    pub(super) endpoint: String,
    pub(super) access_key: String,
    pub(super) secret_key: String,
    /// The PEM text of the authority that signed the server's certificate, where it has one.
    pub(super) authority: Option<String>,
}

/// Keys that are valid for an hour, with the token that belongs to them.
#[derive(Clone, Debug)]
pub struct TemporaryKeys {
    /// The access key.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// What is sent along with each request.
    pub session_token: String,
}

impl MinioClient {
    /// The URL that an S3 client is given; buckets are addressed path style.
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// The access key of the only user.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// That user's secret.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The settings of a client for one bucket.
    pub fn client(&self, bucket: &str) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_client_options(self.options())
            .with_endpoint(&self.endpoint)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key)
            .with_bucket_name(bucket)
    }

    /// The paths of all objects in a bucket, in order.
    pub fn objects(&self, bucket: &str) -> Result<Vec<String>> {
        let client = self.client(bucket).build().expect("the settings are complete");
        let listed = on_own_thread(async move {
            let objects: Vec<_> = client.list(None).try_collect().await?;
            Ok::<_, object_store::Error>(objects)
        });
        let listed = listed.map_err(|error| io_error(format!("listing bucket {bucket}"))(io::Error::other(error)));
        let mut paths: Vec<_> = listed?.into_iter().map(|object| object.location.to_string()).collect();
        paths.sort();
        Ok(paths)
    }

    /// What objects hold, in the order of their paths here.
    pub fn read(&self, bucket: &str, paths: &[String]) -> Result<Vec<Vec<u8>>> {
        let client = &self.client(bucket).build().expect("the settings are complete");
        let get = |path: &String| {
            let path = Path::from(path.as_str());
            async move { Ok::<_, object_store::Error>(client.get(&path).await?.bytes().await?.to_vec()) }
        };
        let gets: Vec<_> = paths.iter().map(get).collect();
        let read = on_own_thread(futures::stream::iter(gets).buffered(READS_AT_ONCE).try_collect());
        read.map_err(|error| io_error(format!("reading objects in bucket {bucket}"))(io::Error::other(error)))
    }

    /// Asks the server's token service for new keys (STS, `AssumeRole`). They may do what the user may.
    pub fn temporary_keys(&self) -> Result<TemporaryKeys> {
        let failed = |why: String| io_error("asking MinIO for temporary keys")(io::Error::other(why));
        let xml = on_own_thread(self.assume_role()).map_err(|error| failed(error.to_string()))?;
        let part = |name: &str| element(&xml, name).ok_or_else(|| failed(format!("no {name} in {xml}")));
        Ok(TemporaryKeys {
            access_key: part("AccessKeyId")?,
            secret_key: part("SecretAccessKey")?,
            session_token: part("SessionToken")?,
        })
    }

    async fn assume_role(&self) -> Result<String, HttpError> {
        let mut request = HttpRequest::new("Action=AssumeRole&Version=2011-06-15".to_owned().into());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("{}/", self.endpoint).parse().expect("the endpoint is a URL");
        let form = header::HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form);
        let user = AwsCredential { key_id: self.access_key.clone(), secret_key: self.secret_key.clone(), token: None };
        AwsAuthorizer::new(&user, "sts", REGION).authorize(&mut request, None);
        let client = ReqwestConnector::default().connect(&self.options()).expect("a client can be made");
        let answer = client.execute(request).await?.into_body().bytes().await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The settings of a connection to the server.
    pub(super) fn options(&self) -> ClientOptions {
        let options = ClientOptions::new().with_allow_http(true);
        match &self.authority {
            None => options,
            Some(pem) => options.with_root_certificate(Certificate::from_pem(pem.as_bytes()).expect("it is PEM")),
        }
    }
}

/// The text of the first XML element of this name.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside.to_owned())
}

/// Waits for an answer on a thread of its own, since the caller may be on a runtime already.
pub(super) fn on_own_thread<T: Send>(work: impl Future<Output = T> + Send) -> T {
    let wait = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(work)
    };
    thread::scope(|scope| scope.spawn(wait).join()).expect("asking does not panic")
}
