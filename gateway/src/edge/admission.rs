//! How many requests are worked on at once, so that those that are get their answers in time: more would only make all of them wait.
//!
//! Each kind of traffic has a lane with places of its own. Who finds none waits in line, and is refused when that takes too long: after
//! a burst, a second; but where the line has not been empty for a tenth of one, or has turned somebody away within the last second, no
//! longer than requests take to be worked on (the idea of CoDel, RFC 8289: a line that stands is of use to nobody). Such a line serves as
//! many as there are places in that time: who finds more before it is refused at once, and costs next to nothing. So an answer comes
//! within about twice of what the work takes, however many ask. Whoever waits for something else, an end or the rest of its body, has no
//! place meanwhile.
//!
//! Where the work is quick, places are free, and requests wait before anybody has looked at them, for this process to come round to
//! them. So every few milliseconds one of a lane's requests goes round once more, and says how long that takes, and how many came
//! meanwhile ([`Round`]). While it takes too long, and not because few requests take long, who comes is refused.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::response::Response;
use taskmaster_openapi::{Code, Problem};
use taskmaster_service::stage::{Entry, Exit, Stage};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::App;

/// How long a request may wait in a line that was empty a moment ago.
const BURST_PATIENCE: Duration = Duration::from_secs(1);
/// From when on a line stands.
const STANDS_AFTER: Duration = Duration::from_millis(100);
/// How long it does so after it has turned somebody away.
const STANDS_FOR: Duration = Duration::from_secs(1);
/// How long a request may wait in a line that stands: as long as the work takes, within these bounds.
const PATIENCE_MIN: Duration = Duration::from_millis(5);
const PATIENCE_MAX: Duration = Duration::from_millis(100);
/// One of the requests goes round this often.
const ROUND_EVERY: Duration = Duration::from_millis(1);
/// A round that takes longer is one too many wait for.
const ROUND_MAX: Duration = Duration::from_micros(500);
/// For so long a round says something of the next one.
const ROUND_COUNTS_FOR: Duration = Duration::from_millis(50);
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

    /// A place among all that are in progress.
    fn any(&self) -> Option<OwnedSemaphorePermit> {
        self.all.clone().try_acquire_owned().ok()
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> &Arc<Semaphore> {
        &self.all
    }

    /// Takes places of the API, as requests that are worked on do.
    #[cfg(test)]
    pub(crate) async fn occupy(&self, writes: bool) -> Admission {
        let (all, lane) = (self.any().unwrap(), if writes { &self.writes } else { &self.reads });
        Admission::new(all, lane.enter().await.unwrap())
    }
}

/// Whether a queue stands, or is only what a burst has left.
#[derive(Debug)]
struct Standing {
    began: Instant,
    /// Until when it counts as one that stands because somebody was turned away, in nanoseconds since the beginning.
    until: AtomicU64,
}

impl Standing {
    fn new(began: Instant) -> Self {
        Self { began, until: AtomicU64::default() }
    }

    /// Nanoseconds since the beginning.
    fn now(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// Whether a queue stands that has been there since then: for a while, or somebody has been turned away lately. One that has only
    /// just been emptied would fill up again at once.
    fn since(&self, then: u64) -> bool {
        let now = self.now();
        now < self.until.load(Ordering::Relaxed) || now.saturating_sub(then) >= nanos(STANDS_AFTER)
    }

    /// Somebody is turned away.
    fn renew(&self) {
        self.until.store(self.now() + nanos(STANDS_FOR), Ordering::Relaxed);
    }
}

/// How long this process takes to come round to what there is to do, as a lane's requests find.
#[derive(Debug)]
struct Round {
    /// As many requests may come within a round, however long it takes: they can be worked on at once.
    few: u64,
    standing: Standing,
    /// Requests that have come.
    came: AtomicU64,
    /// When somebody went round last, in nanoseconds since the beginning.
    went_at: AtomicU64,
    /// Since when it has taken too long each time; 0 while it does not.
    slow_since: AtomicU64,
}

impl Round {
    fn new(places: usize) -> Self {
        let [came, went_at, slow_since] = [(); 3].map(|()| AtomicU64::default());
        Self { few: places as u64, standing: Standing::new(Instant::now()), came, went_at, slow_since }
    }

    /// Counts one that has come. Whether it is time to go round again: true for one of those who ask.
    fn is_due(&self) -> bool {
        self.came.fetch_add(1, Ordering::Relaxed);
        let (now, went_at) = (self.standing.now(), self.went_at.load(Ordering::Relaxed));
        let ago = now.saturating_sub(went_at);
        let is_due = ago >= nanos(ROUND_EVERY)
            && self.went_at.compare_exchange(went_at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_due && ago >= nanos(ROUND_COUNTS_FOR) {
            // How it was in between, nobody knows.
            self.slow_since.store(0, Ordering::Relaxed);
        }
        is_due
    }

    async fn go(&self) {
        let (began, before) = (Instant::now(), self.came.load(Ordering::Relaxed));
        tokio::task::yield_now().await;
        self.note(began.elapsed(), self.came.load(Ordering::Relaxed) - before);
    }

    fn note(&self, took: Duration, came: u64) {
        let since = match (took > ROUND_MAX && came > self.few, self.slow_since.load(Ordering::Relaxed)) {
            (false, _) => 0,
            (true, 0) => self.standing.now(),
            (true, since) => since,
        };
        self.slow_since.store(since, Ordering::Relaxed);
    }

    /// Whether requests are to be refused: it takes too long, and not just because of a burst.
    fn is_too_long(&self) -> bool {
        let since = self.slow_since.load(Ordering::Relaxed);
        if since == 0 {
            return false;
        }
        let ago = self.standing.now().saturating_sub(self.went_at.load(Ordering::Relaxed));
        let is_too_long = ago < nanos(ROUND_COUNTS_FOR) && self.standing.since(since);
        if is_too_long {
            self.standing.renew();
        }
        is_too_long
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
    round: Round,
    standing: Standing,
    /// When there was a free place last, in nanoseconds since the beginning.
    free_at: AtomicU64,
    /// How long the work takes on average, in nanoseconds.
    work: AtomicU64,
}

impl Lane {
    fn new(places: usize) -> Self {
        let (size, places, round) = (places, Arc::new(Semaphore::new(places)), Round::new(places));
        let ([free_at, work], waiting) = ([(); 2].map(|()| AtomicU64::default()), AtomicUsize::default());
        Self { places, size, waiting, round, standing: Standing::new(Instant::now()), free_at, work }
    }

    /// A place, at once or within what a request may wait.
    #[cfg(test)]
    async fn enter(self: &Arc<Self>) -> Option<Work> {
        match self.try_enter() {
            Some(work) => Some(work),
            None => self.line_up().await,
        }
    }

    /// A place, if there is a free one.
    fn try_enter(self: &Arc<Self>) -> Option<Work> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        self.free_at.store(self.standing.now(), Ordering::Relaxed);
        Some(self.working(permit))
    }

    /// A place within what a request may wait.
    async fn line_up(self: &Arc<Self>) -> Option<Work> {
        let waiting = Waiting::behind(&self.waiting);
        let stands = self.stands();
        let permit = match stands && waiting.ahead >= self.size {
            true => None,
            false => {
                let patience = patience(stands, Duration::from_nanos(self.work.load(Ordering::Relaxed)));
                tokio::time::timeout(patience, self.places.clone().acquire_owned()).await.ok()
            }
        };
        let Some(Ok(permit)) = permit else {
            self.standing.renew();
            return None;
        };
        Some(self.working(permit))
    }

    /// Whether the line has not been empty for a while, or has turned somebody away lately.
    fn stands(&self) -> bool {
        self.standing.since(self.free_at.load(Ordering::Relaxed))
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

/// How long a request may wait in a line, before work that takes so long.
fn patience(stands: bool, work: Duration) -> Duration {
    match stands {
        false => BURST_PATIENCE,
        true => work.clamp(PATIENCE_MIN, PATIENCE_MAX),
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
    fn new(all: OwnedSemaphorePermit, work: Work) -> Self {
        let lane = work.lane.clone();
        Self(Arc::new(Mutex::new(Held { all: Some(all), work: Some(work), lane })))
    }

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

/// Admits a request, or sheds it. The place is free again once the answer's headers are there: streams do not occupy one.
#[derive(Clone)]
pub(crate) struct Admit {
    pub app: App,
    pub traffic: Traffic,
}

impl Stage for Admit {
    type Kept = Admission;

    fn enter(&self, request: Request) -> Entry<Admission> {
        let lane = self.app.admissions.lane(self.traffic, &request);
        // Workers' reports are let in: what they end makes room.
        if self.traffic == Traffic::Workers {
            return self.in_turn(lane, request);
        }
        if lane.round.is_due() {
            let (admit, lane) = (self.clone(), lane.clone());
            return Entry::Later(Box::pin(async move {
                lane.round.go().await;
                admit.in_turn(&lane, request)
            }));
        }
        match lane.round.is_too_long() {
            true => Entry::Refused(overloaded()),
            false => self.in_turn(lane, request),
        }
    }

    fn leave(&self, admission: Admission, response: Response) -> Exit {
        admission.release();
        response.into()
    }
}

impl Admit {
    /// A place at once, or one in line.
    fn in_turn(&self, lane: &Arc<Lane>, request: Request) -> Entry<Admission> {
        let Some(all) = self.app.admissions.any() else { return Entry::Refused(overloaded()) };
        if let Some(work) = lane.try_enter() {
            return admitted(request, Admission::new(all, work));
        }
        let lane = lane.clone();
        Entry::Later(Box::pin(async move {
            match lane.line_up().await {
                Some(work) => admitted(request, Admission::new(all, work)),
                None => Entry::Refused(overloaded()),
            }
        }))
    }
}

fn admitted(mut request: Request, admission: Admission) -> Entry<Admission> {
    request.extensions_mut().insert(admission.clone());
    Entry::Passed(request, admission)
}

fn overloaded() -> Problem {
    let detail = "More requests arrive than can be worked on at the moment. Try again in a second.";
    Problem::new(Code::Overloaded, detail).retry_after_seconds(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_may_wait_and_in_a_line_that_stands_nobody_waits_longer_than_the_work_takes() {
        let ms = Duration::from_millis;
        for (stands, work, expected) in [
            (false, ms(1), BURST_PATIENCE),
            (false, ms(3_000), BURST_PATIENCE),
            (true, ms(1), ms(5)),
            (true, ms(20), ms(20)),
            (true, ms(3_000), ms(100)),
        ] {
            assert_eq!(patience(stands, work), expected, "{stands} {work:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_takes_the_place_that_becomes_free_and_is_refused_when_none_does() {
        let a_second_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let lane = Arc::new(Lane { standing: Standing::new(a_second_ago), ..Lane::new(1) });
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
    async fn a_line_that_has_turned_somebody_away_stands_also_once_it_is_empty() {
        let lane = Arc::new(Lane::new(1));
        let first = lane.try_enter().unwrap();
        assert!(!lane.stands());
        lane.standing.renew();
        drop(first);
        let _second = lane.try_enter().unwrap();
        let began = Instant::now();
        assert!(lane.enter().await.is_none() && began.elapsed() < BURST_PATIENCE);
    }

    #[tokio::test]
    async fn who_finds_as_many_in_a_line_that_stands_as_it_has_places_is_refused_at_once() {
        let a_second_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let lane = Arc::new(Lane { standing: Standing::new(a_second_ago), ..Lane::new(1) });
        let _first = lane.try_enter().unwrap();
        // The line has stood for as long as there is a lane.
        lane.free_at.store(0, Ordering::Relaxed);
        let (mut second, mut third) = (Box::pin(lane.enter()), Box::pin(lane.enter()));
        assert!(futures::poll!(&mut second).is_pending(), "it waits");
        assert!(matches!(futures::poll!(&mut third), std::task::Poll::Ready(None)), "it would wait behind the second");
        drop(second);
        assert!(futures::poll!(Box::pin(lane.enter())).is_pending(), "nobody waits any more");
    }

    #[test]
    fn requests_are_refused_once_rounds_have_taken_too_long_for_a_while_and_until_one_does_not() {
        let a_second_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let round = Round { standing: Standing::new(a_second_ago), ..Round::new(4) };
        let slow_for = |duration: Duration| {
            round.note(ROUND_MAX * 2, 5);
            round.slow_since.store(round.standing.now() - nanos(duration), Ordering::Relaxed);
        };
        assert!(round.is_due() && !round.is_due(), "one of those who ask goes");
        assert!(!round.is_too_long(), "nothing is known yet");
        slow_for(STANDS_AFTER / 2);
        assert!(!round.is_too_long(), "it may be a burst");
        slow_for(STANDS_AFTER);
        assert!(round.is_too_long());
        round.note(ROUND_MAX / 2, 5);
        assert!(!round.is_too_long());
        round.note(ROUND_MAX * 2, 5);
        assert!(round.is_too_long(), "at once, as somebody was refused lately");
        round.went_at.store(round.standing.now() - nanos(ROUND_COUNTS_FOR), Ordering::Relaxed);
        assert!(!round.is_too_long(), "that is long ago");
        assert!(round.is_due());
        assert!(!round.is_too_long(), "and says nothing of what comes");
        slow_for(STANDS_AFTER);
        round.note(ROUND_MAX * 2, 4);
        assert!(!round.is_too_long(), "few take long, and would not be quicker if others were refused");
    }

    #[tokio::test]
    async fn who_goes_round_waits_for_all_that_is_to_be_done() {
        let round = Arc::new(Round::new(0));
        let coming = round.clone();
        let busy = tokio::spawn(async move {
            coming.is_due();
            std::thread::sleep(ROUND_MAX * 2);
        });
        round.go().await;
        assert!(busy.is_finished() && round.slow_since.load(Ordering::Relaxed) > 0);
        round.go().await;
        assert_eq!(round.slow_since.load(Ordering::Relaxed), 0);
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
