//! The one error of this crate, whoever refused: the service, the way to it, or this client.

use std::{
    error, fmt,
    time::{Duration, SystemTime},
};

use prost::{Message, Name};
use prost_types::Timestamp;
use tonic::{Code, Status};

use crate::{google::rpc, v1::ErrorObject};

/// The service cannot be reached, or the connection broke.
pub const CONNECTION_FAILED: &str = "connection.failed";
/// What answered is not the service.
pub const ANSWER_INVALID: &str = "answer.invalid";
/// The file to send cannot be read.
pub const FILE_UNREADABLE: &str = "file.unreadable";
pub(crate) const OFFSET_CONFLICT: &str = "upload.offset_conflict";
const IN_PROGRESS: &str = "idempotency.in_progress";

/// Says why a call failed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Error {
    /// One of the catalogue (docs/errors.md), or of this client: [`CONNECTION_FAILED`], [`ANSWER_INVALID`],
    /// [`FILE_UNREADABLE`].
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// The HTTP status that stands for the code, 0 where nothing answered.
    pub status: u16,
    /// What finds the call in the service's log; none where no service answered.
    pub request_id: Option<String>,
    /// How long to wait before another attempt, where the service said so.
    pub retry_after: Option<Duration>,
    /// Facts, such as a limit.
    pub details: prost_types::Struct,
}

impl Error {
    /// Returns whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.code == CONNECTION_FAILED || self.code == IN_PROGRESS || matches!(self.status, 429 | 502 | 503 | 504)
    }

    pub(crate) fn here(code: &str, status: u16, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            status,
            request_id: None,
            retry_after: None,
            details: prost_types::Struct::default(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code, self.message)?;
        self.request_id.as_ref().map_or(Ok(()), |id| write!(out, " (request {id})"))
    }
}

impl error::Error for Error {}

impl From<Status> for Error {
    fn from(refused: Status) -> Self {
        let mut described = None;
        let mut retry_after = text(&refused, "retry-after").and_then(|when| wait(&when));
        // A status whose details cannot be read still has its code.
        for detail in rpc::Status::decode(refused.details()).unwrap_or_default().details {
            match detail.type_url.rsplit('/').next() {
                Some(name) if name == ErrorObject::full_name() => {
                    described = ErrorObject::decode(detail.value.as_slice()).ok();
                }
                Some(name) if name == rpc::RetryInfo::full_name() => {
                    retry_after = rpc::RetryInfo::decode(detail.value.as_slice())
                        .ok()
                        .and_then(|info| info.retry_delay)
                        .and_then(|delay| Duration::try_from(delay).ok());
                }
                _ => {}
            }
        }
        let Some(described) = described else {
            let (code, status) = named(refused.code(), retry_after.is_some());
            let request_id = text(&refused, "request-id");
            return Self { request_id, retry_after, ..Self::here(code, status, refused.message()) };
        };
        Self {
            code: described.code,
            message: described.message,
            status: u16::try_from(described.status).unwrap_or_default(),
            request_id: Some(described.request_id).filter(|id| !id.is_empty()),
            retry_after,
            details: described.details.unwrap_or_default(),
        }
    }
}

/// Says what an error is that carries its canonical code only: made by the edge, by gRPC or by something between.
fn named(code: Code, says_when: bool) -> (&'static str, u16) {
    match code {
        Code::InvalidArgument => ("param.invalid", 400),
        Code::Unauthenticated => ("auth.invalid_token", 401),
        Code::PermissionDenied => ("access.denied", 403),
        Code::NotFound | Code::Unimplemented => ("route.not_found", 404),
        Code::OutOfRange => ("body.too_large", 413),
        // Without a time to come again it is gRPC's own word for a message above the limit.
        Code::ResourceExhausted if says_when => ("rate.exceeded", 429),
        Code::ResourceExhausted => ("body.too_large", 413),
        Code::DeadlineExceeded => ("timeout.exceeded", 504),
        // With one the edge says so; a connection says nothing of when.
        Code::Unavailable if says_when => ("service.overloaded", 503),
        Code::Unavailable => (CONNECTION_FAILED, 503),
        // What breaks a connection is a cancelled or unknown call for this transport.
        Code::Cancelled | Code::Unknown => (CONNECTION_FAILED, 0),
        Code::Internal => ("internal", 500),
        _ => (ANSWER_INVALID, 0),
    }
}

/// Reads `Retry-After`: seconds, or a date where something between wrote it.
fn wait(when: &str) -> Option<Duration> {
    if !when.is_empty() && when.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(when.parse().unwrap_or(u64::MAX)));
    }
    Some(date(when)?.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Reads a date as HTTP writes it, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(written: &str) -> Option<SystemTime> {
    const MONTHS: &str = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
    let [_, day, month, year, time, "GMT"] = written.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = (1..).zip(MONTHS.split(' ')).find(|(_, name)| *name == month)?.0;
    let [hour, minute, second] = time.split(':').collect::<Vec<_>>()[..] else { return None };
    let (day, hour, minute) = (day.parse().ok()?, hour.parse().ok()?, minute.parse().ok()?);
    let date = Timestamp::date_time(year.parse().ok()?, month, day, hour, minute, second.parse().ok()?).ok()?;
    SystemTime::try_from(date).ok()
}

fn text(refused: &Status, name: &str) -> Option<String> {
    Some(refused.metadata().get(name)?.to_str().ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use tonic::Status;

    use super::{Error, date};

    fn told(when: &str) -> Option<Duration> {
        let mut refused = Status::unavailable("no");
        refused.metadata_mut().insert("retry-after", when.parse().unwrap());
        Error::from(refused).retry_after
    }

    #[test]
    fn seconds_to_come_again_in_are_read_however_many() {
        assert_eq!(told("7"), Some(Duration::from_secs(7)));
        assert_eq!(told("18446744073709551615"), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(told("99999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(told("soon"), None);
    }

    #[test]
    fn a_date_to_come_again_at_is_read() {
        let known = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(known));
        assert_eq!(told("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(told("Fri, 31 Dec 9999 23:59:59 GMT").unwrap() > Duration::from_secs(1 << 32));
        for wrong in ["", "Sun, 06 Nov 1994", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Now 1994 08:49 GMT"] {
            assert_eq!(date(wrong), None, "{wrong}");
        }
    }
}
