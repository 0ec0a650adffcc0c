//! `GET /v1/events`: what happens, as server-sent events.
//!
//! A stream first replays the log from the client's last event, page by page, then joins the live feed. Whether it has missed
//! anything it sees by the numbers, at any time, and then replays again.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderName, header};
use taskmaster_openapi::event::EventType;
use taskmaster_openapi::gateway::{EventFilter, TaskFilter};
use taskmaster_openapi::key::Scope;
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::extract::Query;
use taskmaster_service::places::{Full, Place};
use taskmaster_store::keys::KeyId;
use tokio::time::Instant;

use crate::app::App;
use crate::edge::client::{Client, Principal};
use crate::feed::{Batch, Filter, RETRY_HINT, Subscription, truncated_frame};
use crate::validate;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// A comment goes out this often, so that neither side takes a silent stream for a dead one.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How often the API key of a stream is looked at again.
const KEY_CHECK_INTERVAL: Duration = Duration::from_secs(4);
const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");

/// Answers with a stream that ends when the client goes, lags behind, or the process stops.
pub(crate) async fn stream(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Query(query): Query<EventFilter>,
) -> Result<Response, Problem> {
    let after = after(&headers, &query)?;
    let filter = filter(query)?;
    let place = app.sse_clients.take(client.principal).map_err(|full| {
        let detail = match full {
            Full::All => format!("{} streams of events are open already.", app.settings.sse_clients_max),
            Full::Client => format!(
                "{} streams of events are open already with this API key, or without one from this address.",
                app.settings.sse_per_client_max
            ),
        };
        Problem::new(Code::Overloaded, detail).retry_after_seconds(5)
    })?;
    // Before the answer's headers: what is committed after those has a higher number.
    let head = app.store.events_head().await?;
    let follower = Follower::new(app, client.principal, filter, after, head, place);
    let frames = stream::unfold(follower, |mut follower| async move {
        let frame = follower.next().await?;
        Some((Ok::<Bytes, Infallible>(frame), follower))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies such as nginx would otherwise hold events back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}

/// The last event that the client has seen; the header wins, because a browser sends it when it comes back to the same URL.
pub(crate) fn after(headers: &HeaderMap, query: &EventFilter) -> Result<Option<i64>, Problem> {
    let wrong = |code, name: &str| Problem::field(code, name, "must be the number of an event, 0 or above");
    let is_number = |number: i64| (0..=limits::INTEGER_MAX).contains(&number);
    let header = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    if query.after.is_some_and(|number| !is_number(number)) {
        return Err(wrong(Code::InvalidQuery, "after"));
    }
    match (header, query.after) {
        (Some(value), _) => {
            let number =
                value.to_str().ok().and_then(|text| text.parse::<i64>().ok()).filter(|number| is_number(*number));
            number.map(Some).ok_or_else(|| wrong(Code::InvalidHeader, "Last-Event-ID"))
        }
        (None, given) => Ok(given),
    }
}

fn filter(query: EventFilter) -> Result<Filter, Problem> {
    let wrong = |name: &str, detail: String| Problem::field(Code::InvalidQuery, name, detail);
    let types = query.types.as_deref().map(|types| {
        let parse = |name: &str| {
            let known = || EventType::ALL.map(EventType::as_str).join(", ");
            EventType::parse(name.trim()).ok_or_else(|| {
                wrong("types", format!("{:?} is not a kind of event; there are: {}", shortened(name), known()))
            })
        };
        if types.len() > limits::EVENT_TYPES_CHARS_MAX {
            return Err(wrong("types", format!("must have at most {} characters", limits::EVENT_TYPES_CHARS_MAX)));
        }
        types.split(',').map(parse).collect::<Result<Vec<_>, _>>()
    });
    let names = TaskFilter { queue: query.queue.clone(), worker_id: query.worker_id.clone(), ..TaskFilter::default() };
    if let Some((name, detail)) = validate::wrong_filter(&names) {
        return Err(wrong(name, detail));
    }
    let EventFilter { queue, task_id, worker_id, schedule_id, .. } = query;
    Ok(Filter { types: types.transpose()?, queue, task_id, worker_id, schedule_id })
}

fn shortened(text: &str) -> String {
    text.chars().take(50).collect()
}

/// One client's way through the log.
struct Follower {
    app: App,
    /// The API key that opened the stream. It ends when that no longer allows it.
    key: Option<KeyId>,
    check_key_at: Instant,
    filter: Filter,
    /// The last event that was looked at for this client.
    cursor: i64,
    live: Option<Subscription>,
    /// The log is to be read up to this event: at the beginning, and when something was missed. An end that does not move, so that it
    /// is reached however fast events come.
    replay_until: Option<i64>,
    /// What goes out before anything else, the last one first.
    ready: Vec<Bytes>,
    sent_at: Instant,
    ended: bool,
    /// The client's place among those that may follow; free again when it is gone.
    _place: Place<Principal>,
}

impl Follower {
    fn new(
        app: App,
        principal: Principal,
        filter: Filter,
        after: Option<i64>,
        head: i64,
        place: Place<Principal>,
    ) -> Self {
        let key = match principal {
            Principal::Key(id) => Some(id),
            Principal::ConfiguredKey(_) | Principal::Hook(_) | Principal::Address(_) => None,
        };
        let mut ready = vec![RETRY_HINT];
        // A number from the future is one of another log: that of a database that has been replaced.
        if let Some(after) = after.filter(|after| *after > head) {
            ready.push(truncated_frame(after, head));
        }
        let cursor = after.unwrap_or(head).min(head);
        ready.reverse();
        let (sent_at, check_key_at) = (Instant::now(), Instant::now() + KEY_CHECK_INTERVAL);
        let replay_until = Some(head).filter(|head| *head > cursor);
        let (live, ended, _place) = (None, false, place);
        Self { app, key, check_key_at, filter, cursor, live, replay_until, ready, sent_at, ended, _place }
    }

    /// What to send next; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if let Some(frame) = self.ready.pop() {
            return Some(frame);
        }
        let (shutdown, keep_alive_at) = (self.app.shutdown.clone(), self.sent_at + KEEP_ALIVE_INTERVAL);
        let frame = loop {
            if let Some(key) = self.key
                && Instant::now() >= self.check_key_at
            {
                if !self.app.keyring.still_allows(key, Scope::TasksRead).await {
                    return None;
                }
                self.check_key_at = Instant::now() + KEY_CHECK_INTERVAL;
            }
            let (has_key, check_key_at) = (self.key.is_some(), self.check_key_at);
            tokio::select! {
                biased;
                () = shutdown.requested() => {
                    self.ended = true;
                    break Some(RETRY_HINT);
                }
                frame = self.advance() => break frame,
                () = tokio::time::sleep_until(keep_alive_at) => break Some(KEEP_ALIVE),
                () = tokio::time::sleep_until(check_key_at), if has_key => {}
            }
        };
        self.sent_at = Instant::now();
        frame
    }

    /// The next events that pass the filter. Cancel-safe: the cursor moves only with what is returned or passed over.
    async fn advance(&mut self) -> Option<Bytes> {
        loop {
            let text = match (self.replay_until, self.live.is_some()) {
                (Some(until), _) => self.replay(until).await?,
                (None, true) => self.follow().await?,
                (None, false) => {
                    let (live, published) = self.app.feed.subscribe(self.filter.clone());
                    self.live = Some(live);
                    self.replay_until = published.filter(|published| *published > self.cursor);
                    continue;
                }
            };
            if !text.is_empty() {
                return Some(text);
            }
        }
    }

    /// One page of the log.
    async fn replay(&mut self, until: i64) -> Option<Bytes> {
        let page = match self.app.feed.replay(self.cursor).await {
            Ok(page) => page,
            Err(reason) => return gave_up(&reason),
        };
        let lost = (page.begins_after > self.cursor).then(|| truncated_frame(self.cursor, page.begins_after));
        let batch = Batch::new(page.begins_after, page.events);
        let text = batch.text_for(page.begins_after, &self.filter);
        self.cursor = batch.last();
        if self.cursor >= until || batch.is_for_all() {
            self.replay_until = None;
        }
        Some(match lost {
            Some(lost) => [lost, text].concat().into(),
            None => text,
        })
    }

    /// The next batch of the feed that has something for this client.
    async fn follow(&mut self) -> Option<Bytes> {
        // A client that does not keep up is cut off, and resumes from its last event.
        let batch = self.live.as_mut()?.next().await?;
        if batch.is_for_all() {
            self.replay_until = Some(batch.after).filter(|after| *after > self.cursor);
            return Some(Bytes::new());
        }
        let text = batch.text_for(self.cursor, &self.filter);
        self.cursor = self.cursor.max(batch.last());
        Some(text)
    }
}

/// Ends the stream: the client comes back, and goes on where it was.
fn gave_up(reason: &str) -> Option<Bytes> {
    tracing::debug!(reason, "an event stream ended because the log could not be read");
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn parsed(header: Option<&'static str>, query: Option<i64>) -> Result<Option<i64>, Code> {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(LAST_EVENT_ID, HeaderValue::from_static(value));
        }
        after(&headers, &EventFilter { after: query, ..EventFilter::default() }).map_err(|problem| problem.code)
    }

    #[test]
    fn the_header_wins_over_the_parameter_and_nonsense_is_refused() {
        assert_eq!(parsed(None, None), Ok(None));
        assert_eq!(parsed(None, Some(7)), Ok(Some(7)));
        assert_eq!(parsed(Some("9"), Some(7)), Ok(Some(9)));
        assert_eq!(parsed(Some(""), Some(7)), Ok(Some(7)));
        assert_eq!(parsed(None, Some(-1)), Err(Code::InvalidQuery));
        for wrong in ["x", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(parsed(Some(wrong), None), Err(Code::InvalidHeader), "{wrong}");
        }
    }

    #[test]
    fn kinds_are_a_list_of_known_names() {
        let types = |text: &str| filter(EventFilter { types: Some(text.into()), ..EventFilter::default() });
        let two = types("task.completed, task.failed").unwrap().types;
        assert_eq!(two, Some(vec![EventType::TaskCompleted, EventType::TaskFailed]));
        for wrong in ["", "task.completed,", "task.done", "log.truncated", "TASK.FAILED"] {
            let problem = types(wrong).unwrap_err();
            assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::InvalidQuery, "types"), "{wrong:?}");
        }
    }
}
