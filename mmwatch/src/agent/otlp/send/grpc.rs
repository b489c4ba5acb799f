//! gRPC.

use std::error::Error as _;

use axum::{body::Bytes, http::uri::PathAndQuery};
use prost::bytes::{Buf as _, BufMut as _};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
};
use tonic_types::StatusExt as _;

use super::{Answer, Sender, accepted, again, chain, shown};
use crate::agent::otlp::Signal;

impl Sender {
    pub(super) async fn by_grpc(&self, signal: Signal, body: Bytes) -> Answer {
        let mut grpc = Grpc::with_origin(self.client.clone(), self.origin.clone());
        if let Err(error) = grpc.ready().await {
            return again(chain(&error));
        }
        let mut request = Request::new(body);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        let path = PathAndQuery::from_static(signal.method());
        match grpc.unary(request, path, Encoded).await {
            Ok(answer) => accepted(signal, answer.into_inner()),
            Err(status) => meaning(&status),
        }
    }
}

/// What a failure means.
fn meaning(status: &Status) -> Answer {
    // No status of the receiver: there was no answer.
    if status.code() == Code::Unknown
        && let Some(error) = status.source()
    {
        return again(chain(error));
    }
    let after = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    let reason = format!("{:?}: {}", status.code(), shown(status.message()));
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Answer::Again { after, reason },
        // Only if it says that there will be room again.
        Code::ResourceExhausted if after.is_some() => Answer::Again { after, reason },
        _ => Answer::Refused { reason },
    }
}

/// Messages that are encoded already.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, body: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(body);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn some_codes_mean_another_time() {
        for code in [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unavailable,
            Code::DataLoss,
        ] {
            let answer = meaning(&Status::new(code, "no"));
            assert!(
                matches!(answer, Answer::Again { after: None, .. }),
                "{code:?}"
            );
        }
        for code in [
            Code::Unknown,
            Code::InvalidArgument,
            Code::PermissionDenied,
            Code::Unauthenticated,
            Code::Unimplemented,
            Code::Internal,
            Code::ResourceExhausted,
        ] {
            let answer = meaning(&Status::new(code, "no"));
            assert!(matches!(answer, Answer::Refused { .. }), "{code:?}");
        }
    }

    #[test]
    fn who_has_no_room_says_when_there_will_be() {
        let delay = Duration::from_secs(7);
        let details = ErrorDetails::with_retry_info(Some(delay));
        let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
        let Answer::Again { after, reason } = meaning(&status) else {
            panic!("it says when");
        };
        assert_eq!(after, Some(delay));
        assert_eq!(reason, "ResourceExhausted: full");
    }

    #[test]
    fn no_answer_is_no_refusal() {
        let broken = std::io::Error::other("broken pipe");
        let answer = meaning(&Status::from_error(broken.into()));
        assert_eq!(answer, again("broken pipe".into()));
    }
}
