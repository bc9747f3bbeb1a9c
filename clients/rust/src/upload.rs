//! Uploads: in one call where that is cheap, piece by piece where a broken connection would cost too much.

use std::{io::SeekFrom, path::Path, pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    CONNECTION_FAILED, Client, Error,
    client::{keyed, prepared},
    error::{FILE_UNREADABLE, OFFSET_CONFLICT},
    google::api::HttpBody,
    retry::Tries,
    v1::{
        AppendUploadRequest, GetUploadProgressRequest, GetUploadRequest, StartUploadRequest, Upload,
        UploadImageRequest, UploadProgress,
    },
};

/// Up to this a second attempt from the beginning costs no more than asking how far the first one came.
const WHOLE_BYTES: u64 = 4 << 20;
const PIECE_BYTES: u64 = 8 << 20;
const CHUNK_BYTES: u64 = 256 << 10;
/// What one attempt at a piece may take beside its bytes.
const PIECE_WITHIN: Duration = Duration::from_secs(60);
/// An attempt that moves no byte for so long is over, even if the connection does not say so.
pub(crate) const IDLE: Duration = Duration::from_secs(60);
/// Longer than the minute for which the edge still counts a connection that died without a word.
const STALLED_AFTER: Duration = Duration::from_secs(150);
/// The slowest network that still counts as one.
const SLOWEST_BYTES_S: u64 = 64 << 10;

/// Tells how far an upload has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How many bytes are on their way or there.
    pub sent_bytes: u64,
    /// How many there are.
    pub total_bytes: u64,
    /// The id of an upload that goes in pieces.
    pub storage_id: Option<String>,
}

/// Reads parts of one file, and tells how far it was read.
struct Image<'a, F> {
    path: &'a Path,
    size: u64,
    idle: Duration,
    storage_id: Option<String>,
    on_progress: F,
}

pub(crate) async fn upload(
    client: &Client,
    path: &Path,
    on_progress: impl FnMut(Progress) + Send,
) -> Result<Upload, Error> {
    let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    let mut image = Image { path, size, idle: client.idle, storage_id: None, on_progress };
    if size <= WHOLE_BYTES { whole(client, &mut image).await } else { pieces(client, &mut image).await }
}

async fn whole<F: FnMut(Progress) + Send>(client: &Client, image: &mut Image<'_, F>) -> Result<Upload, Error> {
    let key = keyed(None)?;
    let size = image.size;
    let mut tries = Tries::started(client.backoff, client.timeout + transfer(size));
    loop {
        let (chunks, messages) = mpsc::channel(1);
        let mut uploads = client.uploads();
        let request = prepared(ReceiverStream::new(messages), tries.left(), Some(&key));
        let sent = image.stream(0, size, chunks, |data, first| UploadImageRequest {
            size_bytes: first.then(|| i64::try_from(size).unwrap_or(i64::MAX)),
            body: Some(body(data)),
            ..Default::default()
        });
        match both(client.idle, uploads.upload_image(request), sent).await {
            Ok(stored) => return Ok(stored),
            Err(refused) => tries.pause_after(refused).await?,
        }
    }
}

/// Sends an upload, and goes on where it broke off.
async fn pieces<F: FnMut(Progress) + Send>(client: &Client, image: &mut Image<'_, F>) -> Result<Upload, Error> {
    let begun = StartUploadRequest { size_bytes: i64::try_from(image.size).ok(), ..Default::default() };
    let key = keyed(None)?;
    let started = client
        .retried(|left| {
            let (mut uploads, request) = (client.uploads(), prepared(begun.clone(), left, Some(&key)));
            async move { uploads.start_upload(request).await }
        })
        .await?;
    image.storage_id = Some(started.storage_id.clone());
    let mut reached = started;
    let mut tries = Tries::started(client.backoff, STALLED_AFTER);
    while offset(&reached) < image.size {
        let begin = offset(&reached);
        reached = match piece(client, image, &reached.storage_id, begin).await {
            Ok(reached) => reached,
            Err(refused) => after(client, refused, &reached, &mut tries).await?,
        };
        if offset(&reached) > begin {
            tries.restart();
        }
        image.tell(offset(&reached));
    }
    if let Some(stored) = reached.upload {
        return Ok(stored);
    }
    let request = GetUploadRequest { storage_id: reached.storage_id };
    client
        .retried(|left| {
            let (mut uploads, request) = (client.uploads(), prepared(request.clone(), left, None));
            async move { uploads.get_upload(request).await }
        })
        .await
}

async fn piece<F: FnMut(Progress) + Send>(
    client: &Client,
    image: &mut Image<'_, F>,
    storage_id: &str,
    begin: u64,
) -> Result<UploadProgress, Error> {
    let end = (begin + PIECE_BYTES).min(image.size);
    let (chunks, messages) = mpsc::channel(1);
    let mut uploads = client.uploads();
    let request: Request<_> = prepared(ReceiverStream::new(messages), PIECE_WITHIN + transfer(end - begin), None);
    let sent = image.stream(begin, end, chunks, |data, first| AppendUploadRequest {
        storage_id: if first { storage_id.to_owned() } else { String::new() },
        offset: first.then(|| i64::try_from(begin).unwrap_or(i64::MAX)),
        body: Some(body(data)),
    });
    both(client.idle, uploads.append_upload(request), sent).await
}

/// Returns how far an upload came whose last piece failed, once it may go on.
async fn after(
    client: &Client,
    refused: Error,
    last: &UploadProgress,
    tries: &mut Tries,
) -> Result<UploadProgress, Error> {
    let conflict = refused.code == OFFSET_CONFLICT;
    if !conflict {
        tries.pause_after(refused.clone()).await?;
    }
    let reached = reached(client, &last.storage_id, tries).await?;
    if conflict && reached.offset == last.offset {
        // Somebody else adds bytes just now, such as our own connection that died unnoticed.
        tries.pause_after(Error::here(CONNECTION_FAILED, refused.status, refused.message)).await?;
    }
    Ok(reached)
}

/// Asks how far the upload has come, for as long as it may stand still and not only as long as a call.
async fn reached(client: &Client, storage_id: &str, tries: &mut Tries) -> Result<UploadProgress, Error> {
    let request = GetUploadProgressRequest { storage_id: storage_id.to_owned() };
    loop {
        let asked = client
            .retried(|left| {
                let (mut uploads, request) = (client.uploads(), prepared(request.clone(), left, None));
                async move { uploads.get_upload_progress(request).await }
            })
            .await;
        match asked {
            Ok(reached) => return Ok(reached),
            Err(refused) => tries.pause_after(refused).await?,
        }
    }
}

/// Waits for the answer while the file is read; an unreadable file, or a silent connection, is what counts then.
async fn both<A>(
    idle: Duration,
    call: impl Future<Output = Result<Response<A>, Status>>,
    sent: impl Future<Output = Result<(), Error>>,
) -> Result<A, Error> {
    let mut call = pin!(call);
    let answer = tokio::select! {
        // Before everything was sent it says why no more is wanted.
        answer = &mut call => answer,
        sent = sent => {
            sent?;
            within(idle, call).await?
        }
    };
    Ok(answer?.into_inner())
}

async fn within<T>(idle: Duration, coming: impl Future<Output = T>) -> Result<T, Error> {
    let silent = || Error::here(CONNECTION_FAILED, 0, format!("The upload did not move for {} s.", idle.as_secs()));
    timeout(idle, coming).await.map_err(|_| silent())
}

impl<F: FnMut(Progress) + Send> Image<'_, F> {
    /// Hands on the bytes from `begin` to before `end`, a chunk whenever the network took the one before.
    ///
    /// Stops early, without an error, when the call has ended: its status says why.
    async fn stream<Q>(
        &mut self,
        begin: u64,
        end: u64,
        chunks: mpsc::Sender<Q>,
        message: impl Fn(Bytes, bool) -> Q,
    ) -> Result<(), Error> {
        let mut file = File::open(self.path).await.map_err(unreadable)?;
        file.seek(SeekFrom::Start(begin)).await.map_err(unreadable)?;
        let mut at = begin;
        loop {
            let count = CHUNK_BYTES.min(end - at) as usize;
            let mut data = BytesMut::zeroed(count);
            file.read_exact(&mut data).await.map_err(unreadable)?;
            if within(self.idle, chunks.send(message(data.freeze(), at == begin))).await?.is_err() {
                return Ok(());
            }
            at += count as u64;
            self.tell(at);
            if at == end {
                return Ok(());
            }
        }
    }

    fn tell(&mut self, sent_bytes: u64) {
        let storage_id = self.storage_id.clone();
        (self.on_progress)(Progress { sent_bytes, total_bytes: self.size, storage_id });
    }
}

fn body(data: Bytes) -> HttpBody {
    HttpBody { content_type: "application/octet-stream".to_owned(), data, ..Default::default() }
}

fn offset(reached: &UploadProgress) -> u64 {
    u64::try_from(reached.offset).unwrap_or_default()
}

fn transfer(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST_BYTES_S)
}

fn unreadable(failed: std::io::Error) -> Error {
    Error::here(FILE_UNREADABLE, 0, format!("The image cannot be read: {failed}."))
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs, future,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use bytes::{Buf, BufMut, Bytes, BytesMut};
    use h2::{RecvStream, server::SendResponse};
    use http::{HeaderMap, HeaderValue, Request, Response};
    use prost::Message;
    use tokio::{
        net::TcpListener,
        time::{Instant, timeout},
    };
    use uuid::Uuid;

    use super::{CHUNK_BYTES, STALLED_AFTER, after};
    use crate::{
        Backoff, CONNECTION_FAILED, Client, Error,
        retry::Tries,
        v1::{AppendUploadRequest, Upload, UploadProgress},
    };

    const SIZE: i64 = 5_000_000;

    #[tokio::test(start_paused = true)]
    async fn an_upload_stands_still_for_longer_than_a_call_may_take() {
        // Nothing listens there.
        let client = Client::at("127.0.0.1:1", "token").unwrap().build();
        let mut tries = Tries::started(client.backoff, STALLED_AFTER);
        let before = Instant::now();
        let broken = Error::here(CONNECTION_FAILED, 0, "Broken.");
        let refused = after(&client, broken, &UploadProgress::default(), &mut tries).await.unwrap_err();
        assert_eq!(refused.code, CONNECTION_FAILED);
        // Who gives up does so when the next pause, of half a minute at most, would be too long.
        let stood = before.elapsed();
        assert!(stood >= STALLED_AFTER - Duration::from_secs(30), "{stood:?}");
    }
    #[tokio::test]
    async fn a_piece_that_nothing_is_heard_of_goes_on_from_what_the_server_has() {
        for silence in [Silence::ReadsNoMore, Silence::DoesNotAnswer] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let service = Arc::new(Service { silence, reached: Mutex::default() });
            tokio::spawn(serve(listener, Arc::clone(&service)));
            let pauses = Backoff { first: Duration::from_millis(1), cap: Duration::from_millis(1) };
            let mut client = Client::at(&address, "token").unwrap().backoff(pauses).build();
            client.idle = Duration::from_secs(2);
            let path = env::temp_dir().join(Uuid::new_v4().to_string());
            fs::write(&path, vec![0; SIZE as usize]).unwrap();
            // Far below the deadline of the piece.
            let stored = timeout(Duration::from_secs(60), client.upload(&path, |_| {})).await;
            fs::remove_file(path).unwrap();
            assert_eq!(stored.unwrap().unwrap().size_bytes, SIZE);
            assert_eq!(service.reached.lock().unwrap().begun, [0, CHUNK_BYTES as i64]);
        }
    }

    /// How a service stops talking, in the middle of a piece or at its end.
    #[derive(Clone, Copy, PartialEq)]
    enum Silence {
        ReadsNoMore,
        DoesNotAnswer,
    }

    /// Stores the first chunk of the first piece, and says nothing of it.
    struct Service {
        silence: Silence,
        reached: Mutex<Reached>,
    }

    #[derive(Default)]
    struct Reached {
        offset: i64,
        begun: Vec<i64>,
    }

    async fn serve(listener: TcpListener, service: Arc<Service>) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // So wide that a stream that nobody reads stops itself only.
            let mut connection =
                h2::server::Builder::new().initial_connection_window_size(64 << 20).handshake(stream).await.unwrap();
            let service = Arc::clone(&service);
            tokio::spawn(async move {
                while let Some(Ok((request, answers))) = connection.accept().await {
                    let service = Arc::clone(&service);
                    tokio::spawn(async move { service.answer(request, answers).await });
                }
            });
        }
    }

    impl Service {
        async fn answer(&self, request: Request<RecvStream>, mut answers: SendResponse<Bytes>) {
            if request.uri().path().ends_with("/AppendUpload") {
                self.append(request.into_body()).await;
            }
            let offset = self.reached.lock().unwrap().offset;
            let upload = (offset == SIZE).then(|| Upload { size_bytes: SIZE, ..Default::default() });
            let reached = UploadProgress { storage_id: "img_1".to_owned(), offset, upload, ..Default::default() };
            let mut framed = BytesMut::new();
            framed.put_u8(0);
            framed.put_u32(reached.encoded_len() as u32);
            reached.encode(&mut framed).unwrap();
            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut body = answers.send_response(head, false).unwrap();
            body.send_data(framed.freeze(), false).unwrap();
            body.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from(0))])).unwrap();
        }

        async fn append(&self, mut body: RecvStream) {
            let mut unread = BytesMut::new();
            let mut silent = false;
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                unread.extend_from_slice(&data);
                while let Some(message) = next(&mut unread) {
                    let mut reached = self.reached.lock().unwrap();
                    if let Some(offset) = message.offset {
                        reached.begun.push(offset);
                        silent = reached.begun.len() == 1;
                    }
                    if !silent || message.offset.is_some() {
                        reached.offset += message.body.unwrap().data.len() as i64;
                    }
                }
                if silent && self.silence == Silence::ReadsNoMore {
                    future::pending::<()>().await;
                }
            }
            if silent {
                future::pending::<()>().await;
            }
        }
    }

    /// Takes a message that has come whole.
    fn next(unread: &mut BytesMut) -> Option<AppendUploadRequest> {
        let length = unread.get(1..5)?.get_u32() as usize;
        if unread.len() < 5 + length {
            return None;
        }
        unread.advance(5);
        Some(AppendUploadRequest::decode(unread.split_to(length)).unwrap())
    }
}
