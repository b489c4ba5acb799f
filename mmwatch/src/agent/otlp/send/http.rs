//! Protobuf in HTTP/1.1.

use std::time::{Duration, SystemTime};

use axum::{
    body::Bytes,
    http::{
        HeaderMap, HeaderValue, Request, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
};
use http_body_util::{BodyExt as _, Full, Limited};
use prost::Message as _;
use tonic::body::Body;
use tonic_types::Status;

use super::{Answer, Sender, accepted, again, chain, shown};
use crate::agent::otlp::Signal;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Bytes of an answer, at most.
const MAX_ANSWER_BYTES: usize = 64 << 10;

impl Sender {
    pub(super) async fn by_http(&self, signal: Signal, body: Bytes) -> Answer {
        let uri = format!(
            "{}{}{}",
            self.origin.to_string().trim_end_matches('/'),
            self.base,
            signal.path()
        );
        let request = Request::post(uri).body(Body::new(Full::new(body)));
        let mut request = match request {
            Ok(request) => request,
            Err(error) => return refused(error.to_string()),
        };
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(CONTENT_TYPE, PROTOBUF);
        let answer = match self.client.request(request).await {
            Ok(answer) => answer,
            Err(error) => return again(chain(&error)),
        };
        let (head, body) = answer.into_parts();
        let body = match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            // What it means is in the head.
            Err(error) if !head.status.is_success() => {
                log::debug!("otlp: {error}");
                Bytes::new()
            }
            // Nothing says that it was taken.
            Err(error) => return again(error.to_string()),
        };
        meaning(signal, head.status, &head.headers, body)
    }
}

/// What an answer means.
fn meaning(signal: Signal, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Answer {
    if status.is_success() {
        return accepted(signal, body);
    }
    let says = Status::decode(body).map_or_else(|_| String::new(), |says| shown(&says.message));
    let colon = if says.is_empty() { "" } else { ": " };
    let reason = format!("{status}{colon}{says}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Answer::Again {
            after: retry_after(headers, SystemTime::now()),
            reason,
        },
        _ => refused(reason),
    }
}

fn refused(reason: String) -> Answer {
    Answer::Refused { reason }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value)
            .ok()?
            .duration_since(now)
            .ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&'static str>, says: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        }
        let body = Status {
            message: says.to_owned(),
            ..Status::default()
        };
        let status = StatusCode::from_u16(status).unwrap();
        meaning(
            Signal::Metrics,
            status,
            &headers,
            body.encode_to_vec().into(),
        )
    }

    #[test]
    fn four_answers_mean_another_time() {
        for status in [429, 502, 503, 504] {
            let Answer::Again { after, reason } = answer(status, Some("7"), "busy") else {
                panic!("{status}");
            };
            assert_eq!(after, Some(Duration::from_secs(7)));
            assert!(reason.contains(&status.to_string()), "{reason}");
            assert!(reason.ends_with(": busy"), "{reason}");
        }
        for status in [301, 400, 401, 404, 413, 500, 501] {
            let Answer::Refused { reason } = answer(status, Some("7"), "") else {
                panic!("{status}");
            };
            assert!(reason.contains(&status.to_string()), "{reason}");
        }
    }

    #[test]
    fn a_time_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let after = |value| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            retry_after(&headers, now).map(|after| after.as_secs())
        };
        assert_eq!(after("120"), Some(120));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:00 GMT"), None);
        assert_eq!(after("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
