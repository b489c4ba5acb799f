//! What the agent answers over HTTP, and to whom.

mod door;
mod events;
mod token;

use std::{io, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Path, Query, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE},
    },
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::Deserialize;
use tokio::{
    sync::{Semaphore, watch},
    task,
    time::timeout,
};

pub use self::{
    door::{Door, serve},
    token::Token,
};
use super::{
    config::{Config, Listen},
    feed::Feed,
    lifecycle::Health,
    metrics,
    otlp::Books,
};
use crate::{
    churn::By,
    error::Error,
    identity::Who,
    maps::read::{Reading, Source},
    options::System,
    process::Users,
    sink::json,
};

/// Address spaces that are read at the same time: what stands in a queue longer than a
/// request may take is turned away.
const READINGS: usize = 2;

/// What is answered, and what that needs.
#[derive(Clone)]
pub struct Site(Arc<Parts>);

/// What there is to tell.
#[derive(Clone, Debug)]
pub struct Told {
    /// Reports, and whether they can be relied upon.
    pub health: Health,
    /// Events.
    pub feed: Feed,
    /// Address spaces, and what filters name.
    pub system: System,
}

struct Parts {
    told: Told,
    token: watch::Receiver<Option<Token>>,
    /// Whether only names of this machine may be in `Host`.
    is_local: bool,
    /// Those of the export by OTLP, if there is one.
    books: Option<Books>,
    /// Whether whoever gets here may know addresses of others' mappings.
    tells_addresses: bool,
    readings: Arc<Semaphore>,
    request_timeout: std::time::Duration,
}

impl Site {
    /// A site that shows what is `told`.
    pub fn new(
        config: &Config,
        told: Told,
        token: watch::Receiver<Option<Token>>,
        books: Option<Books>,
    ) -> Self {
        let is_local = match &config.listen {
            Listen::Tcp(address) => address.ip().is_loopback(),
            // No browser gets there.
            Listen::Unix(_) => false,
        };
        Self(Arc::new(Parts {
            told,
            token,
            is_local,
            books,
            tells_addresses: config.tells_addresses(),
            readings: Arc::new(Semaphore::new(READINGS)),
            request_timeout: config.request_timeout,
        }))
    }

    /// Its pages.
    fn router(self) -> Router {
        let of_addresses = Router::new()
            .route("/api/v1/maps/{pid}", get(maps))
            .route("/api/v1/events", get(events::stream))
            .route_layer(middleware::from_fn_with_state(self.clone(), ask_privacy));
        let told = Router::new()
            .route("/metrics", get(metrics_text))
            .route("/api/v1/processes", get(processes))
            .route("/api/v1/process/{pid}", get(process))
            .merge(of_addresses)
            .route_layer(middleware::from_fn_with_state(self.clone(), ask_token));
        // What looks after the agent has no token, and these tell nothing of processes.
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .merge(told)
            .layer(middleware::from_fn_with_state(self.clone(), ask_host))
            .with_state(self)
    }
}

fn no_report() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "there is no report yet")
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    (status, format!("{reason}\n")).into_response()
}

/// A page that a browser shows may have its own name lead to this machine (DNS
/// rebinding); its requests still carry that name.
async fn ask_host(State(site): State<Site>, request: Request, next: Next) -> Response {
    if site.0.is_local && !names_this_machine(request.headers()) {
        return refuse(
            StatusCode::FORBIDDEN,
            "the Host of the request is not this machine; use localhost or 127.0.0.1",
        );
    }
    next.run(request).await
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    // The port follows the last colon, unless that is a part of [::1].
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

async fn ask_token(State(site): State<Site>, request: Request, next: Next) -> Response {
    let is_welcome = match &*site.0.token.borrow() {
        None => true,
        Some(token) => request
            .headers()
            .get(AUTHORIZATION)
            .is_some_and(|given| token.is_in(given.as_bytes())),
    };
    if is_welcome {
        return next.run(request).await;
    }
    let mut refusal = refuse(
        StatusCode::UNAUTHORIZED,
        "this needs `Authorization: Bearer TOKEN`, with the token of the agent's token_file",
    );
    refusal
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refusal
}

/// Where things lie in another's address space is what the kernel keeps from other
/// users, who all get to an address of this machine.
async fn ask_privacy(State(site): State<Site>, request: Request, next: Next) -> Response {
    if site.0.tells_addresses {
        return next.run(request).await;
    }
    refuse(
        StatusCode::FORBIDDEN,
        "addresses in processes are not told to everybody on this machine; have the agent ask \
         for a token (token_file) or listen on a socket (listen = \"unix:PATH\")",
    )
}

async fn ready(State(site): State<Site>) -> Response {
    match site.0.told.health.readiness(Instant::now()) {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => refuse(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

/// Whether a client wants the older text of metrics: it asks for plain text and does not know
/// OpenMetrics.
fn wants_plain(headers: &HeaderMap) -> bool {
    let accepts = |kind: &str| {
        let values = headers.get_all(ACCEPT).iter();
        let mut values = values.filter_map(|value| value.to_str().ok());
        values.any(|value| value.contains(kind))
    };
    accepts("text/plain") && !accepts("application/openmetrics-text")
}

async fn metrics_text(State(site): State<Site>, headers: HeaderMap) -> Response {
    let Told { health, system, .. } = &site.0.told;
    let books = site.0.books.as_ref().map(Books::accounts);
    let sources = metrics::Sources::look(health, &system.proc, books, Instant::now());
    let (text, kind) = if wants_plain(&headers) {
        (
            metrics::plain(&sources.metrics()),
            metrics::PLAIN_CONTENT_TYPE,
        )
    } else {
        (metrics::text(sources.metrics()), metrics::CONTENT_TYPE)
    };
    match text {
        Ok(text) => ([(CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// What can be asked of `/api/v1/processes`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    rows: Option<usize>,
    by: Option<String>,
}

async fn processes(State(site): State<Site>, Query(wanted): Query<Wanted>) -> Response {
    let Some(snapshot) = site.0.told.health.snapshot() else {
        return no_report();
    };
    let by = wanted.by.as_deref().unwrap_or(By::Process.name());
    let Some(by) = By::ALL.into_iter().find(|of| of.name() == by) else {
        let names = By::ALL.map(By::name).join(", ");
        return refuse(
            StatusCode::BAD_REQUEST,
            &format!("processes can be grouped by {names}"),
        );
    };
    let rows = wanted.rows.unwrap_or(usize::MAX);
    let report = snapshot.report.clone();
    let report = if by == By::Process {
        report.cut(rows)
    } else {
        let users = Users::new();
        report.grouped(by, rows, |uid| users.name(uid))
    };
    written(|to| json::write_report(to, snapshot.clock, &report, &snapshot.ledger))
}

async fn process(State(site): State<Site>, Path(pid): Path<u32>) -> Response {
    let Some(snapshot) = site.0.told.health.snapshot() else {
        return no_report();
    };
    let processes = &snapshot.report.processes;
    let mut of_pid = processes
        .iter()
        .filter(|process| Who::shown_pid(process.who.as_deref(), process.key.tgid) == pid);
    // One that ended may be in the report beside one that has its id now.
    match of_pid
        .clone()
        .find(|process| process.alive)
        .or_else(|| of_pid.next())
    {
        Some(process) => {
            written(|to| json::write_process(to, snapshot.clock, &snapshot.report, process))
        }
        None => refuse(
            StatusCode::NOT_FOUND,
            &format!("there is no process {pid} that is watched"),
        ),
    }
}

async fn maps(State(site): State<Site>, Path(pid): Path<u32>) -> Response {
    let read = async {
        // Held by the reading itself, which goes on when nobody waits for it any more.
        let Ok(permit) = site.0.readings.clone().acquire_owned().await else {
            return Ok(Err(Error::Usage("the agent ends".to_owned())));
        };
        let proc = site.0.told.system.proc.clone();
        task::spawn_blocking(move || {
            let _permit = permit;
            let reading = Reading::take(&proc, pid, Source::Maps)?;
            let mut text = Vec::new();
            json::maps::write_space(&mut text, &reading.space()?)
                .map_err(Error::io("writing the answer"))?;
            Ok::<_, Error>(text)
        })
        .await
    };
    match timeout(site.0.request_timeout, read).await {
        Ok(Ok(Ok(text))) => ([(CONTENT_TYPE, JSON)], text).into_response(),
        Ok(Ok(Err(error))) => {
            let status = match &error {
                Error::Kernel(_) => StatusCode::FORBIDDEN,
                Error::Usage(_) | Error::Io { .. } => StatusCode::NOT_FOUND,
                Error::Command { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            };
            refuse(status, &error.to_string())
        }
        Ok(Err(error)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(_) => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "reading the address space takes too long",
        ),
    }
}

const JSON: &str = "application/json";

fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Response {
    let mut text = Vec::new();
    match write(&mut text) {
        Ok(()) => ([(CONTENT_TYPE, JSON)], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_text_is_for_those_who_ask_for_it() {
        let wants = |accept: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(ACCEPT, value.parse().unwrap());
            }
            wants_plain(&headers)
        };
        assert!(wants(&["text/plain"]));
        assert!(wants(&["text/html", "text/plain;version=0.0.4;q=0.5"]));
        for accept in [
            &[][..],
            &["*/*"],
            // As Prometheus asks.
            &["application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3"],
        ] {
            assert!(!wants(accept), "{accept:?}");
        }
    }

    #[test]
    fn only_names_of_this_machine_pass() {
        let passes = |host: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(HOST, host.parse().unwrap());
            }
            names_this_machine(&headers)
        };
        for host in [
            "localhost",
            "LOCALHOST:9464",
            "127.0.0.1:9464",
            "127.0.0.2",
            "[::1]",
            "[::1]:9464",
        ] {
            assert!(passes(Some(host)), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:9464",
            "10.0.0.1",
            "",
        ] {
            assert!(!passes(Some(host)), "{host}");
        }
        assert!(!passes(None));
    }
}
