//! How many requests are worked on at once, so that those that are get their answers in time: more would only make all of them wait.
//!
//! Each kind of traffic has a lane with places of its own. Who finds none waits in line, and is refused when that takes too long: after
//! a burst, a second; but where the line has not been empty for a tenth of one, no longer than requests take to be worked on (the
//! idea of CoDel, RFC 8289: a line that stands is of use to nobody). Such a line serves as many as there are places in that time: who
//! finds more before it is refused at once, and costs next to nothing. So an answer comes within about twice of what the work takes,
//! however many ask. Whoever waits for something else, an end or the rest of its body, has no place meanwhile.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use taskmaster_openapi::{Code, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::App;
use crate::edge::deadline;

/// How long a request may wait in a line that was empty a moment ago.
const BURST_PATIENCE: Duration = Duration::from_secs(1);
/// From when on a line stands.
const STANDS_AFTER: Duration = Duration::from_millis(100);
/// How long a request may wait in a line that stands: as long as the work takes, within these bounds.
const PATIENCE_MIN: Duration = Duration::from_millis(5);
const PATIENCE_MAX: Duration = Duration::from_millis(100);
/// Of how many requests the time of the work is an average.
const AVERAGED: u64 = 64;
/// Workers' reports are few and short, and what users ask for must not keep them out.
const WORKERS_AT_ONCE: usize = 256;

/// What a request is counted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// The public API.
    Api,
    /// What other apps send with a signature or a token, which its handler checks.
    Tokens,
    /// The coordinator's contract.
    Workers,
}

/// The lanes of a gateway.
#[derive(Debug)]
pub(crate) struct Admissions {
    all: Arc<Semaphore>,
    reads: Arc<Lane>,
    writes: Arc<Lane>,
    workers: Arc<Lane>,
}

impl Admissions {
    /// At most `all_max` requests in progress, of which so many are worked on at once.
    pub(crate) fn new(all_max: usize, reads: usize, writes: usize) -> Self {
        let (all, lane) = (Arc::new(Semaphore::new(all_max)), |places| Arc::new(Lane::new(places)));
        Self { all, reads: lane(reads), writes: lane(writes), workers: lane(WORKERS_AT_ONCE) }
    }

    fn lane(&self, traffic: Traffic, request: &Request) -> &Arc<Lane> {
        match traffic {
            Traffic::Workers => &self.workers,
            Traffic::Api | Traffic::Tokens if request.method().is_safe() => &self.reads,
            Traffic::Api | Traffic::Tokens => &self.writes,
        }
    }

    async fn admit(&self, lane: &Arc<Lane>) -> Option<Admission> {
        let all = self.all.clone().try_acquire_owned().ok()?;
        let work = lane.enter().await?;
        Some(Admission(Arc::new(Mutex::new(Held { all: Some(all), work: Some(work), lane: lane.clone() }))))
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> &Arc<Semaphore> {
        &self.all
    }

    /// Takes places of the API, as requests that are worked on do.
    #[cfg(test)]
    pub(crate) async fn occupy(&self, writes: bool) -> Admission {
        self.admit(if writes { &self.writes } else { &self.reads }).await.unwrap()
    }
}

/// Places for requests that are worked on, and the line before them.
#[derive(Debug)]
struct Lane {
    places: Arc<Semaphore>,
    /// How many places there are.
    size: usize,
    /// How many wait for one.
    waiting: AtomicUsize,
    began: Instant,
    /// When there was a free place last, in nanoseconds since the beginning.
    free_at: AtomicU64,
    /// How long the work takes on average, in nanoseconds.
    work: AtomicU64,
}

impl Lane {
    fn new(places: usize) -> Self {
        let (size, places) = (places, Arc::new(Semaphore::new(places)));
        let (waiting, free_at, work) = (AtomicUsize::default(), AtomicU64::default(), AtomicU64::default());
        Self { places, size, waiting, began: Instant::now(), free_at, work }
    }

    fn now(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// A place, at once or within what a request may wait.
    async fn enter(self: &Arc<Self>) -> Option<Work> {
        if let Some(work) = self.try_enter() {
            self.free_at.store(self.now(), Ordering::Relaxed);
            return Some(work);
        }
        let stands_for = Duration::from_nanos(self.now().saturating_sub(self.free_at.load(Ordering::Relaxed)));
        let waiting = Waiting::behind(&self.waiting);
        if stands_for >= STANDS_AFTER && waiting.ahead >= self.size {
            return None;
        }
        let patience = patience(stands_for, Duration::from_nanos(self.work.load(Ordering::Relaxed)));
        let permit = tokio::time::timeout(patience, self.places.clone().acquire_owned()).await.ok()?.ok()?;
        Some(self.working(permit))
    }

    fn try_enter(self: &Arc<Self>) -> Option<Work> {
        self.places.clone().try_acquire_owned().ok().map(|permit| self.working(permit))
    }

    fn working(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Work {
        Work { lane: self.clone(), since: Instant::now(), _permit: permit }
    }

    /// Requests that end at the same time may overwrite one another's share of the average, which harms nothing.
    fn note(&self, took: Duration) {
        let took = nanos(took.min(PATIENCE_MAX));
        let average = self.work.load(Ordering::Relaxed);
        self.work.store(average - average / AVERAGED + took / AVERAGED, Ordering::Relaxed);
    }
}

/// One of those who wait in a line.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    /// How many waited before.
    ahead: usize,
}

impl<'a> Waiting<'a> {
    fn behind(all: &'a AtomicUsize) -> Self {
        Self { all, ahead: all.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How long a request may wait in a line that has stood for so long, before work that takes so long.
fn patience(stands_for: Duration, work: Duration) -> Duration {
    match stands_for < STANDS_AFTER {
        true => BURST_PATIENCE,
        false => work.clamp(PATIENCE_MIN, PATIENCE_MAX),
    }
}

/// A place of a request that is worked on.
#[derive(Debug)]
struct Work {
    lane: Arc<Lane>,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.lane.note(self.since.elapsed());
    }
}

#[derive(Debug)]
struct Held {
    all: Option<OwnedSemaphorePermit>,
    work: Option<Work>,
    lane: Arc<Lane>,
}

/// A request's place among those that are in progress, as an extension of the request.
#[derive(Debug, Clone)]
pub(crate) struct Admission(Arc<Mutex<Held>>);

impl Admission {
    /// Of a request that is not counted.
    pub(crate) fn uncounted() -> Self {
        Self(Arc::new(Mutex::new(Held { all: None, work: None, lane: Arc::new(Lane::new(0)) })))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the place to another: for a request that from now on only waits.
    pub(crate) fn release(&self) {
        let mut held = self.held();
        (held.all, held.work) = (None, None);
    }

    /// Nothing can be done for now: the client has not sent all yet.
    pub(crate) fn pause(&self) {
        self.held().work = None;
    }

    /// There is something to do again. Who has been admitted is not refused any more, whether there is a place or not.
    pub(crate) fn resume(&self) {
        let mut held = self.held();
        if held.work.is_none() && held.all.is_some() {
            held.work = held.lane.try_enter();
        }
    }
}

/// Admits a request, or sheds it; ends it when it takes too long. The place is free again once the answer's headers are there: streams do
/// not occupy one.
pub(crate) async fn admit(State((app, traffic)): State<(App, Traffic)>, mut request: Request, next: Next) -> Response {
    let lane = app.admissions.lane(traffic, &request);
    let Some(admission) = app.admissions.admit(lane).await else {
        let detail = "More requests arrive than can be worked on at the moment. Try again in a second.";
        return Problem::new(Code::Overloaded, detail).retry_after_seconds(1).into_response();
    };
    request.extensions_mut().insert(admission.clone());
    let response = deadline::limit(&app.settings, &admission, request, next).await;
    admission.release();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_may_wait_and_in_a_line_that_stands_nobody_waits_longer_than_the_work_takes() {
        let ms = Duration::from_millis;
        for (stands_for, work, expected) in [
            (ms(0), ms(1), BURST_PATIENCE),
            (ms(99), ms(1), BURST_PATIENCE),
            (ms(100), ms(1), ms(5)),
            (ms(100), ms(20), ms(20)),
            (ms(60_000), ms(3_000), ms(100)),
        ] {
            assert_eq!(patience(stands_for, work), expected, "{stands_for:?} {work:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_takes_the_place_that_becomes_free_and_is_refused_when_none_does() {
        let a_second_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let lane = Arc::new(Lane { began: a_second_ago, ..Lane::new(1) });
        let first = lane.enter().await.unwrap();
        let (second, ()) = tokio::join!(lane.enter(), async { drop(first) });
        assert!(second.is_some(), "within the patience for a burst");
        // The line has stood for as long as there is a lane.
        lane.free_at.store(0, Ordering::Relaxed);
        let began = Instant::now();
        assert!(lane.enter().await.is_none() && began.elapsed() < BURST_PATIENCE);
        drop(second);
        assert!(lane.enter().await.is_some(), "a free place is taken in any case");
    }

    #[tokio::test]
    async fn who_finds_as_many_in_a_line_that_stands_as_it_has_places_is_refused_at_once() {
        let a_second_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let lane = Arc::new(Lane { began: a_second_ago, ..Lane::new(1) });
        let _first = lane.try_enter().unwrap();
        let (mut second, mut third) = (Box::pin(lane.enter()), Box::pin(lane.enter()));
        assert!(futures::poll!(&mut second).is_pending(), "it waits");
        assert!(matches!(futures::poll!(&mut third), std::task::Poll::Ready(None)), "it would wait behind the second");
        drop(second);
        assert!(futures::poll!(Box::pin(lane.enter())).is_pending(), "nobody waits any more");
    }

    #[test]
    fn the_average_follows_the_work() {
        let lane = Lane::new(1);
        (0..1_000).for_each(|_| lane.note(Duration::from_millis(20)));
        let average = Duration::from_nanos(lane.work.load(Ordering::Relaxed));
        assert!((19..=20).contains(&average.as_millis()), "{average:?}");
        (0..1_000).for_each(|_| lane.note(Duration::from_secs(30)));
        assert!(Duration::from_nanos(lane.work.load(Ordering::Relaxed)) <= PATIENCE_MAX);
    }
}
