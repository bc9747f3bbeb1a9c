//! Where the service is.

use std::net::IpAddr;

use http::Uri;

use crate::Error;

/// Returns the URI to connect to for `grpc://`, `grpcs://` (encrypted) and `host[:port]`, which is encrypted unless the
/// host is this machine.
pub(crate) fn parse(text: &str) -> Result<Uri, Error> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let uri: Uri = format!("http://{}", rest.trim_end_matches('/')).parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    let bare = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
    let tls = match scheme {
        Some("grpc") => false,
        Some("grpcs") => true,
        None => !is_loopback(authority.host()),
        Some(_) => return Err(wrong()),
    };
    if !bare || authority.host().is_empty() {
        return Err(wrong());
    }
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 50051 });
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}:{port}", authority.host()).parse().map_err(|_| wrong())
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn wrong() -> Error {
    Error::here("param.invalid", 400, "An address is grpc:// or grpcs:// with a host and, if need be, a port.")
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_scheme_says_whether_the_connection_is_encrypted() {
        assert_eq!(parse("grpc://10.0.0.1").unwrap(), "http://10.0.0.1:50051");
        assert_eq!(parse("grpcs://localhost/").unwrap(), "https://localhost:443");
    }

    #[test]
    fn without_one_it_is_unless_the_host_is_this_machine() {
        assert_eq!(parse("127.0.0.1:8080").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(parse("[::1]").unwrap(), "http://[::1]:50051");
        assert_eq!(parse("cam.example").unwrap(), "https://cam.example:443");
    }

    #[test]
    fn anything_else_is_none() {
        for text in ["", "grpc://", "http://127.0.0.1", "grpc://host/v1", "grpc://host?a=b", "grpc://me@host"] {
            assert_eq!(parse(text).unwrap_err().code, "param.invalid", "{text}");
        }
    }
}
