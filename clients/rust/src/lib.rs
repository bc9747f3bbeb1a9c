//! The Rust client of camserve: what is on an image, and a heatmap of why, over gRPC.
//!
//! [`Client`] makes calls and tries them again. Requests and answers are the messages of [`v1`], whose generated stubs,
//! over [`Client::channel`], reach everything else.

mod address;
mod client;
mod error;
mod retry;
mod upload;

pub use client::{Builder, Client};
pub use error::{ANSWER_INVALID, CONNECTION_FAILED, Error, FILE_UNREADABLE};
pub use retry::Backoff;
pub use upload::Progress;

/// The messages and stubs of the service.
pub use proto::camserve::v1;
/// Messages of Google's that the service's refer to.
pub use proto::google;

// Generated code names its own modules by their packages.
#[allow(missing_docs, clippy::all, rustdoc::all)]
mod proto {
    pub mod camserve {
        pub mod v1 {
            include!("gen/camserve.v1.rs");
        }
    }
    pub mod google {
        pub mod api {
            include!("gen/google.api.rs");
        }
        pub mod rpc {
            include!("gen/google.rpc.rs");
        }
    }
}
