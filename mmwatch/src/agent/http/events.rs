//! `/api/v1/events`: events as they happen, as server-sent events.

use std::{io, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State},
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use serde::Serialize;
use tokio::time::timeout;

use super::{Site, door::Pulse, refuse};
use crate::{
    agent::feed::{Item, Losses, Subscription, Told},
    clock::WallClock,
    options,
    sink::json::{self, SCHEMA},
};

/// Events that may wait for a client that reads slowly.
const ROOM: usize = 16 << 10;

/// Time after which a client is told that nothing happens, so that both sides know of
/// each other.
const QUIET: Duration = Duration::from_secs(15);

/// Bytes after which what waits is sent.
const CHUNK_BYTES: usize = 32 << 10;

/// What is said beside events.
#[derive(Serialize)]
struct Notice {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    losses: Option<Losses>,
}

pub(super) async fn stream(
    State(site): State<Site>,
    Extension(pulse): Extension<Pulse>,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    let told = &site.0.told;
    let filter = match options::of_query(&asked, &told.system) {
        Ok(filter) => filter,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let Some(snapshot) = told.health.snapshot() else {
        return super::no_report();
    };
    let Some(subscription) = told.feed.subscribe(filter, ROOM) else {
        return refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "there are too many subscribers already, or the agent ends",
        );
    };
    let stream = stream::unfold(
        Telling {
            subscription,
            clock: snapshot.clock,
            pulse,
            stage: Stage::Begins,
        },
        async |mut telling| {
            let chunk = telling.chunk().await.transpose()?;
            Some((chunk, telling))
        },
    );
    let head = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    (head, Body::from_stream(stream)).into_response()
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begins,
    Goes,
    Ended,
}

/// The answer under way.
struct Telling {
    subscription: Subscription,
    clock: WallClock,
    pulse: Pulse,
    stage: Stage,
}

impl Telling {
    /// What is to be sent next, once there is something; `None` at the end.
    async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        match self.stage {
            Stage::Ended => return Ok(None),
            Stage::Begins => {
                self.subscription.begun().await;
                self.stage = Stage::Goes;
                notice(&mut text, "begin", None)?;
            }
            Stage::Goes => match timeout(QUIET, self.subscription.next()).await {
                Err(_) => text.extend_from_slice(b":\n\n"),
                Ok(Some(Item::Lost(losses))) => notice(&mut text, "lost", Some(losses))?,
                Ok(Some(Item::Event(told))) => {
                    self.event(&mut text, &told)?;
                    while text.len() < CHUNK_BYTES
                        && let Some(told) = self.subscription.waiting()
                    {
                        self.event(&mut text, &told)?;
                    }
                }
                Ok(None) => {
                    self.stage = Stage::Ended;
                    notice(&mut text, "end", None)?;
                }
            },
        }
        self.pulse.beat();
        Ok(Some(text))
    }

    fn event(&self, text: &mut Vec<u8>, told: &Told) -> io::Result<()> {
        text.extend_from_slice(b"data: ");
        // With the end of its line.
        json::write_event(text, self.clock, told.seq, &told.event)?;
        text.push(b'\n');
        Ok(())
    }
}

/// Something that is no event, by the name of what it is.
fn notice(text: &mut Vec<u8>, kind: &'static str, losses: Option<Losses>) -> io::Result<()> {
    let notice = Notice {
        schema: SCHEMA,
        kind,
        losses,
    };
    text.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes());
    serde_json::to_writer(&mut *text, &notice)?;
    text.extend_from_slice(b"\n\n");
    Ok(())
}
