//! Calls as callers make them: with a token, under a key, and again when that may help.

use std::{fmt, path::Path, time::Duration};

#[cfg(feature = "tls")]
use tonic::transport::{Certificate, ClientTlsConfig};
use tonic::{
    Request, Response, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::{
    ANSWER_INVALID, Backoff, Error, Progress, address,
    retry::Tries,
    upload,
    v1::{
        InferRequest, InferResponse, Upload, inference_service_client::InferenceServiceClient,
        upload_service_client::UploadServiceClient,
    },
};

/// Answers may carry heatmaps.
const MOST_BYTES: usize = 64 << 20;

/// Calls the service over gRPC, at its own port or through the edge.
///
/// It is meant to be kept, and cheap to clone: clones share one connection. Every failure is an [`Error`]. A call is
/// tried again, with the pauses of a [`Backoff`], for as long as its timeout allows, where that may help and is safe.
#[derive(Clone)]
pub struct Client {
    channel: Signed,
    pub(crate) backoff: Backoff,
    pub(crate) timeout: Duration,
    pub(crate) idle: Duration,
}

/// A connection that sends the caller's token with every call.
pub type Signed = InterceptedService<Channel, Token>;

impl Client {
    /// Begins a client of the service at `grpc://host:port`, `grpcs://host:port` (encrypted) or `host:port` (encrypted
    /// unless the host is this machine), which signs in with a token (a JWT).
    pub fn at(address: &str, token: &str) -> Result<Builder, Error> {
        let endpoint = Endpoint::from(address::parse(address)?)
            .user_agent(concat!("camserve-rust/", env!("CARGO_PKG_VERSION")))
            .map_err(invalid)?;
        #[cfg(feature = "tls")]
        let endpoint = if endpoint.uri().scheme_str() == Some("https") {
            endpoint.tls_config(ClientTlsConfig::new().with_webpki_roots()).map_err(invalid)?
        } else {
            endpoint
        };
        let token = format!("Bearer {token}")
            .parse()
            .map_err(|_| Error::here("auth.invalid_token", 401, "A token is what a header can carry."))?;
        Ok(Builder { endpoint, token: Token(token), backoff: Backoff::default(), timeout: Duration::from_secs(60) })
    }

    /// Returns the classes of an image and, if asked for, its heatmap, or the receipt of a job that it became
    /// (`job_id`).
    ///
    /// The call is made under one idempotency key in all its attempts: `key`, 1 to 255 visible ASCII characters, or one
    /// made here.
    pub async fn infer(&self, request: InferRequest, key: Option<&str>) -> Result<InferResponse, Error> {
        let key = keyed(key)?;
        let stub = InferenceServiceClient::new(self.channel.clone()).max_decoding_message_size(MOST_BYTES);
        self.retried(|left| {
            let mut stub = stub.clone();
            let request = prepared(request.clone(), left, Some(&key));
            async move { stub.infer(request).await }
        })
        .await
        .and_then(answered)
    }

    /// Stores the image in a file, of which a small part is in memory at a time; `on_progress` is told how far it came.
    ///
    /// Above 4 MiB it goes in pieces, and goes on where a broken connection left it. Fails when it is refused, or when
    /// nothing moved for 150 s.
    pub async fn upload(
        &self,
        path: impl AsRef<Path>,
        on_progress: impl FnMut(Progress) + Send,
    ) -> Result<Upload, Error> {
        upload::upload(self, path.as_ref(), on_progress).await
    }

    /// Returns the connection with the caller's token, for the generated stubs of [`crate::v1`].
    pub fn channel(&self) -> Signed {
        self.channel.clone()
    }

    pub(crate) fn uploads(&self) -> UploadServiceClient<Signed> {
        UploadServiceClient::new(self.channel.clone())
    }

    /// Makes attempts, each of which is told how much time is left, until one succeeds or no other may help.
    pub(crate) async fn retried<A, F>(&self, attempt: impl Fn(Duration) -> F) -> Result<A, Error>
    where
        // Not AsyncFn: of what that returns nobody can say that another thread may go on with it.
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut tries = Tries::started(self.backoff, self.timeout);
        loop {
            match attempt(tries.left()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(refused) => tries.pause_after(refused.into()).await?,
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Client")
            .field("backoff", &self.backoff)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Collects how a client works.
pub struct Builder {
    endpoint: Endpoint,
    token: Token,
    backoff: Backoff,
    timeout: Duration,
}

impl Builder {
    /// Limits the time of a call with all its attempts, 60 s by default.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Chooses the pauses between attempts.
    pub fn backoff(mut self, pauses: Backoff) -> Self {
        self.backoff = pauses;
        self
    }

    /// Trusts these certificate authorities (PEM) instead of those that Mozilla ships.
    #[cfg(feature = "tls")]
    pub fn authorities(mut self, pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        self.endpoint = self.endpoint.tls_config(tls).map_err(invalid)?;
        Ok(self)
    }

    /// Returns the client, which connects at its first call.
    pub fn build(self) -> Client {
        let channel = InterceptedService::new(self.endpoint.connect_lazy(), self.token);
        Client { channel, backoff: self.backoff, timeout: self.timeout, idle: upload::IDLE }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Builder").field("endpoint", self.endpoint.uri()).finish_non_exhaustive()
    }
}

/// Sends the caller's token with every call.
#[derive(Clone)]
pub struct Token(AsciiMetadataValue);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token")
    }
}

/// Returns the key of a write: the caller's, or one made here.
pub(crate) fn keyed(key: Option<&str>) -> Result<AsciiMetadataValue, Error> {
    let made = key.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
    let visible = (1..=255).contains(&made.len()) && made.bytes().all(|byte| byte.is_ascii_graphic());
    let said = || Error::here("idempotency.key_invalid", 400, "A key is 1 to 255 visible ASCII characters.");
    if visible { made.parse().map_err(|_| said()) } else { Err(said()) }
}

/// Returns a request with its deadline and, for a write, its key.
pub(crate) fn prepared<Q>(message: Q, within: Duration, key: Option<&AsciiMetadataValue>) -> Request<Q> {
    let mut request = Request::new(message);
    request.set_timeout(within);
    let headers: &mut MetadataMap = request.metadata_mut();
    if let Some(key) = key {
        headers.insert("idempotency-key", key.clone());
    }
    request
}

/// Returns an answer that is one: classes may all be less probable than was asked for, but a model always answers.
fn answered(answer: InferResponse) -> Result<InferResponse, Error> {
    if answer.job_id.is_none() && answer.model.is_empty() {
        return Err(Error::here(ANSWER_INVALID, 0, "The answer is empty."));
    }
    Ok(answer)
}

fn invalid(wrong: tonic::transport::Error) -> Error {
    Error::here("param.invalid", 400, wrong.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Client, answered};
    use crate::{
        ANSWER_INVALID,
        v1::{InferRequest, InferResponse},
    };

    #[tokio::test(start_paused = true)]
    async fn calls_may_be_tasks() {
        // Nothing listens there.
        let client = Client::at("127.0.0.1:1", "token").unwrap().build();
        let other = client.clone();
        let inferred = tokio::spawn(async move { other.infer(InferRequest::default(), None).await });
        let uploaded = tokio::spawn(async move { client.upload("Cargo.toml", |_| {}).await });
        assert!(inferred.await.unwrap().unwrap_err().is_retryable());
        assert!(uploaded.await.unwrap().unwrap_err().is_retryable());
    }

    #[test]
    fn an_empty_answer_is_none() {
        assert_eq!(answered(InferResponse::default()).unwrap_err().code, ANSWER_INVALID);
        let improbable = InferResponse { model: "shapes".to_owned(), ..Default::default() };
        assert_eq!(answered(improbable.clone()), Ok(improbable));
        let receipt = InferResponse { job_id: Some("job_1".to_owned()), ..Default::default() };
        assert_eq!(answered(receipt.clone()), Ok(receipt));
    }
}
