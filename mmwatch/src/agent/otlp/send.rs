//! Requests to the receiver, in HTTP or gRPC, and what its answers mean by the
//! specification of OTLP.

mod files;
mod grpc;
mod http;

use std::{error::Error as StdError, fmt::Write as _, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, Uri, header::USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, metrics::v1::ExportMetricsServiceResponse,
};
use prost::{DecodeError, Message as _};
use tokio::time::timeout;
use tonic::body::Body;

use super::Signal;
use crate::{
    agent::config::{Otlp, Protocol},
    error::{Error, Result},
    text::Escaped,
};

/// Time after which a connection that says nothing is asked whether it is still there, and
/// to answer that.
const ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// What the receiver made of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has it, all but `rejected` items.
    Accepted {
        /// How many it did not take.
        rejected: u64,
        /// What it says about that, or about what it takes all the same.
        message: String,
    },
    /// It may take it another time.
    Again {
        /// Not before that.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// It will never take it.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Who sends.
pub struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    protocol: Protocol,
    /// Scheme, host and port.
    origin: Uri,
    /// What stands before the path of a signal.
    base: String,
    headers: HeaderMap,
    timeout: Duration,
}

impl Sender {
    /// Reads headers and certificates; connects with the first request.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for files that cannot be used.
    pub fn new(config: &Otlp) -> Result<Self> {
        let mut headers = match &config.headers_file {
            Some(path) => files::headers(path)?,
            None => HeaderMap::new(),
        };
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("mmwatch/", env!("CARGO_PKG_VERSION"))),
        );
        let is_grpc = config.protocol == Protocol::Grpc;
        let tls = match &config.ca_file {
            Some(path) => files::authorities(path)?,
            None if config.endpoint.is_https() => files::system_authorities()?,
            None => files::no_authorities(),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(files::tls(tls)?)
            .https_or_http();
        let connector = if is_grpc {
            connector.enable_http2().build()
        } else {
            connector.enable_http1().build()
        };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(is_grpc)
            .http2_keep_alive_interval(ALIVE.0)
            .http2_keep_alive_timeout(ALIVE.1)
            .build(connector);
        let mut origin = config.endpoint.uri().clone().into_parts();
        origin.path_and_query = Some(axum::http::uri::PathAndQuery::from_static("/"));
        Ok(Self {
            client,
            protocol: config.protocol,
            origin: Uri::from_parts(origin)
                .map_err(|error| Error::Usage(format!("otlp.endpoint: {error}")))?,
            base: config.endpoint.base().to_owned(),
            headers,
            timeout: config.timeout,
        })
    }

    /// Makes one request, within the timeout.
    pub async fn send(&self, signal: Signal, body: Bytes) -> Answer {
        let answer = async {
            match self.protocol {
                Protocol::Http => self.by_http(signal, body).await,
                Protocol::Grpc => self.by_grpc(signal, body).await,
            }
        };
        timeout(self.timeout, answer)
            .await
            .unwrap_or_else(|_| again(format!("no answer within {:?}", self.timeout)))
    }
}

fn again(reason: String) -> Answer {
    Answer::Again {
        after: None,
        reason,
    }
}

/// What the body of an answer says.
fn accepted(signal: Signal, body: Bytes) -> Answer {
    match partial(signal, body) {
        Ok(partial) => {
            let (rejected, message) = partial.unwrap_or_default();
            Answer::Accepted {
                // Less than nothing is nothing.
                rejected: u64::try_from(rejected).unwrap_or(0),
                message: shown(&message),
            }
        }
        // It took the request, and that is known, whatever it says about it.
        Err(error) => Answer::Accepted {
            rejected: 0,
            message: format!("its answer is none by OTLP: {error}"),
        },
    }
}

/// How many items it rejects, and why.
fn partial(signal: Signal, body: Bytes) -> Result<Option<(i64, String)>, DecodeError> {
    Ok(match signal {
        Signal::Metrics => ExportMetricsServiceResponse::decode(body)?
            .partial_success
            .map(|partial| (partial.rejected_data_points, partial.error_message)),
        Signal::Logs => ExportLogsServiceResponse::decode(body)?
            .partial_success
            .map(|partial| (partial.rejected_log_records, partial.error_message)),
    })
}

/// Text of somebody else, for the log: without control characters, and not without end.
fn shown(text: &str) -> String {
    let start: String = text.trim().chars().take(200).collect();
    Escaped(start.as_bytes()).to_string()
}

/// An error with what is behind it.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a text does not fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    shown(&text)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;

    use super::*;

    #[test]
    fn an_answer_tells_what_was_rejected() {
        let answer = |rejected| {
            let body = ExportLogsServiceResponse {
                partial_success: Some(ExportLogsPartialSuccess {
                    rejected_log_records: rejected,
                    error_message: "too\nold".into(),
                }),
            };
            accepted(Signal::Logs, body.encode_to_vec().into())
        };
        let want = |rejected| Answer::Accepted {
            rejected,
            message: r"too\nold".into(),
        };
        assert_eq!(answer(3), want(3));
        assert_eq!(answer(-3), want(0));
        let nothing = Answer::Accepted {
            rejected: 0,
            message: String::new(),
        };
        assert_eq!(accepted(Signal::Metrics, Bytes::new()), nothing);
        let Answer::Accepted { rejected, message } =
            accepted(Signal::Metrics, Bytes::from_static(b"{}"))
        else {
            panic!("taken is taken");
        };
        assert_eq!(rejected, 0);
        assert!(message.contains("none by OTLP"), "{message}");
    }
}
