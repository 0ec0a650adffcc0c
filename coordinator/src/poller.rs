//! Claiming what is due for those who have room.
//!
//! The poller knows which bands (a lane and a priority) may have something due, because a notification named them, a timer that a look
//! ahead has set went off, or a rescan found them. It claims from those only, and only as much as there is room for.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use taskmaster_openapi::report::TaskClaim;
use taskmaster_store::StoreError;
use taskmaster_store::claim::{Band, BandFrom, Claimed, Lane, Mark, is_system};
use taskmaster_store::deep::DeepLooks;
use taskmaster_store::wakeup::{Channel, Listener, Wakeup};
use tokio::sync::mpsc;

use crate::coordinator::{Coordinator, Parcel};
use crate::fleet::Group;
use crate::gates::Gates;
use crate::part::part;

/// Tasks are claimed so long before they are due; the worker waits out the rest.
const HORIZON: Duration = Duration::from_millis(250);
/// Tasks of one claim.
const CLAIM_MAX: usize = 1_000;
/// What is said to have come, and not since when, may be due so long before what was claimed last: that is claimed before its time, and a
/// transaction takes some.
const LATE_COMMIT: TimeDelta = TimeDelta::seconds(1);
/// A rescan goes back so far below the low-water mark: no transaction lives longer (see the store's statement time-out).
const RESCAN: TimeDelta = TimeDelta::seconds(30);
/// What is due and was not claimed is locked by another coordinator: it is looked at again after so long.
const SOONEST: Duration = Duration::from_millis(1);
/// What others leave of their parts of what has just come is anybody's after so long.
const PARTS_FIRST: Duration = Duration::from_millis(50);
/// Of so many polls one looks from the bottom.
const DEEP_EVERY: u32 = 6;
/// After a claim that found less than there was room for, late commits are looked for once more.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Notifications that may wait for the poller; the connection is not read further before.
const NOTIFICATIONS_MAX: usize = 1_000;
/// A claim that was not answered is made within this time, or never: no statement lives longer.
const UNHEARD: Duration = Duration::from_secs(35);
/// Claims that were heard of are remembered for longer than those that were not are looked for (see the store).
const HEARD_KEPT: Duration = Duration::from_secs(180);
/// What a notification says when there is room again in a queue with limits.
pub(crate) const ROOM: &str = "+";
/// Between tries while the database is not available.
const PAUSE: Duration = Duration::from_millis(500);

/// What is known of a band.
#[derive(Debug, Clone, Copy, Default)]
struct Watch {
    /// Nothing unclaimed comes before.
    low_water: Option<Mark>,
    /// Something may be due.
    hot: bool,
    /// So many tasks have just come, and nothing was left before: of these each coordinator takes its part first.
    came: Option<usize>,
    /// Something may be due then.
    at: Option<Instant>,
    /// Look for late commits then.
    look_again: Option<Instant>,
    /// The next claim looks for late commits.
    below: bool,
}

impl Watch {
    /// Something unclaimed may come so low, or so far below what was claimed last: its transaction may have committed since.
    fn lower(&mut self, from: Option<DateTime<Utc>>) {
        let lowered = |mark: Mark| mark.min(Mark::at(from.unwrap_or(mark.run_at - LATE_COMMIT)));
        self.low_water = self.low_water.map(lowered);
    }

    /// Something may be due: so many tasks that have just come, or anything.
    fn heat(&mut self, came: Option<usize>) {
        self.came = match (self.hot, self.came, came) {
            (false, _, came) => came.filter(|came| *came > 0),
            (true, Some(before), Some(more)) => Some(before.saturating_add(more)),
            (true, _, _) => None,
        };
        self.hot = true;
    }
}

pub(crate) struct Poller {
    coordinator: Arc<Coordinator>,
    lanes: Vec<Lane>,
    bands: HashMap<Band, Watch>,
    gates: Gates,
    next_poll: Instant,
    /// From the bottom.
    deep: DeepLooks,
    /// From further down than the marks say.
    below: DeepLooks,
    /// The numbers of the newest claims that were heard of, and when.
    heard: VecDeque<(Instant, i64)>,
    /// A claim was not answered: until then it may turn out to have been made.
    unheard_until: Option<Instant>,
}

/// What made the poller wake up.
enum Wake {
    Notified(String),
    Connected,
    Room,
    Timer,
}

impl Poller {
    pub fn new(coordinator: Arc<Coordinator>) -> Self {
        Self {
            coordinator,
            lanes: Vec::new(),
            bands: HashMap::new(),
            gates: Gates::default(),
            next_poll: Instant::now(),
            deep: DeepLooks::default(),
            below: DeepLooks::default(),
            heard: VecDeque::new(),
            unheard_until: None,
        }
    }

    /// Polls until the stop is requested.
    pub async fn run(mut self) {
        let shutdown = self.coordinator.shutdown.clone();
        let (sender, mut notifications) = mpsc::channel(NOTIFICATIONS_MAX);
        if !self.coordinator.config.no_notifications {
            // One connection for both.
            let listener = self.coordinator.store.listen(&[Channel::Due, Channel::Schedules]);
            let (stop, coordinator) = (shutdown.clone(), self.coordinator.clone());
            self.coordinator.tasks.spawn(async move { stop.or_stop(listen(&coordinator, listener, sender)).await });
        }
        while let Some(wake) = shutdown.or_stop(self.wait(&mut notifications)).await {
            if let Err(error) = self.handle(wake).await {
                let _ = self.coordinator.noted::<()>(Err(error));
                // Whatever was missed meanwhile is found by a rescan.
                self.next_poll = Instant::now() + PAUSE;
                if shutdown.or_stop(tokio::time::sleep(PAUSE)).await.is_none() {
                    return;
                }
            }
        }
    }

    async fn wait(&mut self, notifications: &mut mpsc::Receiver<Wake>) -> Wake {
        let timer = self.next_timer();
        tokio::select! {
            Some(wake) = notifications.recv() => wake,
            () = self.coordinator.room.notified() => Wake::Room,
            () = tokio::time::sleep_until(timer.into()) => Wake::Timer,
        }
    }

    fn next_timer(&self) -> Instant {
        let bands = self.bands.values().flat_map(|watch| [watch.at, watch.look_again]).flatten();
        bands.chain(self.gates.next_try()).chain([self.next_poll]).min().unwrap_or(self.next_poll)
    }

    async fn handle(&mut self, wake: Wake) -> Result<(), StoreError> {
        match wake {
            Wake::Notified(bands) => self.notified(&bands).await?,
            Wake::Connected => {
                // Nobody knows what was said meanwhile.
                self.bands.values_mut().for_each(|watch| watch.low_water = watch.low_water.map(further_down));
                self.rescan().await?;
            }
            Wake::Room => {}
            Wake::Timer => self.timer().await?,
        }
        let freed = std::mem::take(&mut self.coordinator.shared().freed);
        if freed {
            self.gates.let_all_try();
        }
        while self.claim_round().await? {}
        // What room this coordinator has no use for may be of use to others.
        if freed && self.coordinator.shared().peers.len() > 1 {
            self.coordinator.store.tell_due(ROOM).await?;
        }
        Ok(())
    }

    /// Bands, as [`Channel::Due`] names them.
    async fn notified(&mut self, bands: &str) -> Result<(), StoreError> {
        if bands == ROOM {
            self.gates.let_all_try();
            return Ok(());
        }
        let parsed: Option<Vec<Come>> = bands.split(',').map(Come::parse).collect();
        let Some(parsed) = parsed else {
            self.bands.values_mut().for_each(|watch| watch.lower(None));
            return self.rescan().await;
        };
        // They are in order.
        if parsed.iter().any(|Come { band, .. }| self.lanes.binary_search_by_key(&band.lane, |lane| lane.id).is_err()) {
            self.lanes = self.coordinator.store.lanes().await?;
            self.sort_lanes();
        }
        for Come { band, tasks, from } in parsed {
            let watch = self.bands.entry(band).or_default();
            watch.heat(tasks);
            watch.lower(from);
        }
        Ok(())
    }

    async fn timer(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if now >= self.next_poll {
            return self.rescan().await;
        }
        self.gates.let_try(now);
        for watch in self.bands.values_mut() {
            if watch.at.is_some_and(|at| at <= now) {
                watch.at = None;
                watch.heat(None);
            }
            if watch.look_again.is_some_and(|at| at <= now) {
                watch.look_again = self.below.not_before(now);
                if watch.look_again.is_some() {
                    continue;
                }
                watch.heat(None);
                watch.low_water = watch.low_water.map(further_down);
                watch.below = true;
            }
        }
        Ok(())
    }

    /// The poll: looks for what is due next in every band that there can be, from further down than the marks say; now and then
    /// from the bottom, for what another coordinator had locked when this one passed, and then did not claim after all.
    async fn rescan(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        self.next_poll = now + self.coordinator.config.poll_seconds;
        self.give_back_unheard().await?;
        self.lanes = self.coordinator.noted(self.coordinator.store.lanes().await)?;
        self.coordinator.store.load_queues().await?;
        self.sort_lanes();
        self.gates.let_all_try();
        let from_the_bottom = self.deep.is_due(now);
        let from_below = from_the_bottom || self.below.is_due(now);
        for watch in self.bands.values_mut().filter(|_| from_below) {
            watch.low_water = watch.low_water.filter(|_| !from_the_bottom).map(further_down);
            watch.below = true;
        }
        let asked = Instant::now();
        self.look_ahead(&self.all_bands()).await?;
        match (from_the_bottom, from_below) {
            (true, _) => self.deep.looked(asked, self.coordinator.config.poll_seconds * DEEP_EVERY),
            (false, true) => self.below.looked(asked, Duration::ZERO),
            (false, false) => {}
        }
        let by_then = Instant::now() + SOONEST;
        let due = self.bands.values_mut().filter(|watch| watch.at.is_some_and(|at| at <= by_then));
        for watch in due {
            (watch.at, watch.below) = (None, from_below);
            watch.heat(None);
        }
        Ok(())
    }

    /// Which lanes are open to all claims, and which are not.
    fn sort_lanes(&mut self) {
        let limited = self.gates.sort(&self.lanes, &self.coordinator.store.queue_book());
        self.coordinator.shared().limited = limited;
    }

    /// Lanes with something that may be claimed.
    fn hot_lanes(&self) -> Vec<Lane> {
        let hot: HashSet<i32> = self
            .bands
            .iter()
            .filter(|(band, watch)| watch.hot && self.gates.is_open(band.lane))
            .map(|(band, _)| band.lane)
            .collect();
        self.lanes.iter().filter(|lane| hot.contains(&lane.id)).cloned().collect()
    }

    /// Every band that there can be.
    fn all_bands(&self) -> Vec<BandFrom> {
        Band::of(self.lanes.iter().map(|lane| lane.id))
            .map(|band| BandFrom { band, low_water: self.mark(band), max: usize::MAX })
            .collect()
    }

    fn mark(&self, band: Band) -> Option<Mark> {
        self.bands.get(&band).and_then(|watch| watch.low_water)
    }

    /// One claim for each group of workers that has room. `true` when there may be more to claim.
    async fn claim_round(&mut self) -> Result<bool, StoreError> {
        // What is claimed by one whom others take for dead is not pushed; the next sign of life wakes this up.
        if !self.coordinator.shared().is_alive(Instant::now()) {
            return Ok(false);
        }
        let lanes = self.hot_lanes();
        if lanes.is_empty() {
            return Ok(false);
        }
        let groups = self.coordinator.shared().fleet.groups(&lanes);
        let mut more = false;
        for group in groups {
            let bands = self.hot_bands(&group);
            if bands.is_empty() {
                continue;
            }
            let seats = self.coordinator.shared().fleet.seats(&group.workers, CLAIM_MAX, Instant::now());
            if seats.is_empty() {
                continue;
            }
            more |= self.claim(&bands, &group.workers, &seats).await?;
        }
        Ok(more && !self.coordinator.shutdown.is_requested())
    }

    fn hot_bands(&self, group: &Group) -> Vec<BandFrom> {
        // A claim of a group before may have closed some; the lanes are in order.
        let is_theirs = |lane| group.lanes.binary_search(&lane).is_ok() && self.gates.is_open(lane);
        let hot = self.bands.iter().filter(|(band, watch)| watch.hot && is_theirs(band.lane));
        let shared = self.coordinator.shared();
        let part = |watch: &Watch| watch.came.and_then(|came| part(came, self.coordinator.id, &shared.peers));
        let from = |(band, watch): (&Band, &Watch)| BandFrom {
            band: *band,
            low_water: watch.low_water,
            max: part(watch).unwrap_or(usize::MAX),
        };
        let mut bands: Vec<BandFrom> = hot.map(from).collect();
        drop(shared);
        bands.sort_unstable_by_key(|b| (std::cmp::Reverse(b.band.priority), b.band.lane));
        self.bound_system_bands(&mut bands);
        bands
    }

    /// Leaves of the bands of system queues those that have room of their own; the others stay hot until they have.
    fn bound_system_bands(&self, bands: &mut Vec<BandFrom>) {
        let lanes: Vec<i32> = bands.iter().map(|b| b.band.lane).filter(|lane| is_system(*lane)).collect();
        if lanes.is_empty() {
            return;
        }
        let mut shared = self.coordinator.shared();
        let (out, slots) = (shared.fleet.out_of_system_lanes(), shared.fleet.http_slots());
        let rooms = shared.flows.rooms(&lanes, &out, slots);
        for b in bands.iter_mut().filter(|b| is_system(b.band.lane)) {
            b.max = b.max.min(rooms.get(&b.band.lane).copied().unwrap_or(0));
        }
        bands.retain(|b| b.max > 0);
    }

    async fn claim(&mut self, bands: &[BandFrom], workers: &[String], seats: &[usize]) -> Result<bool, StoreError> {
        let horizon_ms = HORIZON.as_secs_f64() * 1000.0;
        let is_from_below = bands.iter().any(|b| self.bands.get(&b.band).is_some_and(|watch| watch.below));
        let began = Instant::now();
        let claimed = self.coordinator.store.claim(self.coordinator.id, bands, workers, seats, horizon_ms).await;
        self.note_claim(&claimed);
        let claimed = claimed?;
        if is_from_below {
            self.below.looked(began, Duration::ZERO);
        }
        if claimed.is_stale {
            self.coordinator.store.load_queues().await?;
            self.sort_lanes();
            self.gates.let_all_try();
            return Ok(true);
        }
        let exhausted = claimed.tasks.len() < seats.len();
        let parted = self.leave_the_rest(bands, exhausted);
        let now = Instant::now();
        for held in &claimed.held_back {
            self.gates.hold_back(held.lane, now + Duration::from_secs_f64(held.ms / 1000.0));
        }
        self.raise_marks(&claimed);
        self.send(claimed, workers, seats);
        if exhausted {
            // What is held back stays hot.
            let rest = bands.iter().filter(|b| !self.gates.is_held_back(b.band.lane) && !parted.contains(&b.band));
            let rest: Vec<BandFrom> = rest.map(|b| BandFrom { low_water: self.mark(b.band), ..*b }).collect();
            self.look_ahead(&rest).await?;
        }
        Ok(!exhausted)
    }

    fn note_claim(&mut self, claimed: &Result<Claimed, StoreError>) {
        let now = Instant::now();
        match claimed {
            Ok(claimed) => {
                for task in &claimed.tasks {
                    // There are two numbers at most: what counts for limits has one of its own.
                    if self.heard.iter().rev().take(2).all(|(_, number)| *number != task.claim) {
                        self.heard.push_back((now, task.claim));
                    }
                }
            }
            Err(_) => self.unheard_until = now.checked_add(UNHEARD),
        }
        while self.heard.front().is_some_and(|(at, _)| at.elapsed() > HEARD_KEPT) {
            self.heard.pop_front();
        }
    }

    /// Gives back what was claimed here and never heard of, because the answer was lost. Nothing is being claimed meanwhile.
    async fn give_back_unheard(&mut self) -> Result<(), StoreError> {
        let Some(until) = self.unheard_until else { return Ok(()) };
        let heard: Vec<i64> = self.heard.iter().map(|(_, claim)| *claim).collect();
        let back = self.coordinator.store.hand_back_unheard(self.coordinator.id, &heard).await?;
        if back > 0 {
            tracing::warn!(tasks = back, "gave back tasks whose claim was not answered");
        }
        if Instant::now() >= until {
            self.unheard_until = None;
        }
        self.next_poll = self.next_poll.min(Instant::now() + LOOK_AGAIN);
        Ok(())
    }

    /// What was claimed of some of these bands was a part. The rest of what has come is for others, at first; but where there was not room
    /// for the part, whoever has room next takes what there is. Gives back the bands of which the rest is left.
    fn leave_the_rest(&mut self, bands: &[BandFrom], had_room: bool) -> HashSet<Band> {
        let others_first = Instant::now() + PARTS_FIRST;
        let mut parted = HashSet::new();
        for b in bands {
            let Some(watch) = self.bands.get_mut(&b.band) else { continue };
            if watch.came.take().is_some() && b.max < usize::MAX && had_room && !is_system(b.band.lane) {
                watch.hot = false;
                watch.at = Some(watch.at.map_or(others_first, |at| at.min(others_first)));
                parted.insert(b.band);
            }
        }
        parted
    }

    /// Above what was claimed in a band, nothing is passed over; below, nothing is left but what is committed late. Where notifications say
    /// when that has come, the marks are lowered then: all that was claimed in half a second would be walked over by every claim otherwise.
    fn raise_marks(&mut self, claimed: &Claimed) {
        let unheard = self.coordinator.config.no_notifications.then(|| Mark::at(claimed.now - LATE_COMMIT));
        for task in &claimed.tasks {
            let mark = Mark { run_at: task.run_at, id: task.task_id };
            let mark = unheard.map_or(mark, |unheard| mark.min(unheard));
            let watch = self.bands.entry(task.band).or_default();
            watch.low_water = watch.low_water.max(Some(mark));
        }
    }

    /// Puts each task on the line to its worker.
    fn send(&self, claimed: Claimed, workers: &[String], seats: &[usize]) {
        let claimed_at = Instant::now();
        let mut parcels: BTreeMap<&String, Vec<Parcel>> = BTreeMap::new();
        let mut shared = self.coordinator.shared();
        let mut tasks = claimed.tasks;
        // In the order of the seats, so that the last turn is the last one taken.
        tasks.sort_unstable_by_key(|task| task.seat);
        for task in tasks {
            let Some(worker_id) = seats.get(task.seat).and_then(|place| workers.get(*place)) else { continue };
            let claim = TaskClaim { task_id: task.task_id, claim: task.claim };
            shared.fleet.give(worker_id, claim, task.band.lane, claimed_at);
            shared.count_up(task.claim, 1);
            parcels.entry(worker_id).or_default().push(Parcel { task, claimed_at });
        }
        for (worker_id, parcels) in parcels {
            // A worker that left meanwhile has no line: its tasks are stranded with it, and rescued with the rest.
            match shared.lines.get(worker_id) {
                Some(line) => drop(line.parcels.send(parcels)),
                None => self.coordinator.sweep.notify_one(),
            }
        }
    }

    /// Nothing more is due in these bands: sets their timers by what comes next.
    async fn look_ahead(&mut self, bands: &[BandFrom]) -> Result<(), StoreError> {
        let ahead_ms = self.coordinator.config.lookahead_seconds.as_secs_f64() * 1000.0;
        let next: HashMap<Band, f64> = self.coordinator.store.next_due(bands, ahead_ms).await?.into_iter().collect();
        let now = Instant::now();
        for BandFrom { band, .. } in bands {
            // Most bands that there can be are not there.
            if !next.contains_key(band) && !self.bands.contains_key(band) {
                continue;
            }
            let watch = self.bands.entry(*band).or_default();
            watch.hot = false;
            watch.look_again = (!std::mem::take(&mut watch.below)).then_some(now + LOOK_AGAIN);
            watch.at = next.get(band).map(|ms| now + wait_for(*ms));
        }
        Ok(())
    }
}

/// Where a rescan begins.
fn further_down(mark: Mark) -> Mark {
    Mark::at(mark.run_at - RESCAN)
}

/// From now until a task that is due in so many milliseconds may be claimed.
fn wait_for(due_in_ms: f64) -> Duration {
    Duration::from_secs_f64((due_in_ms / 1000.0 - HORIZON.as_secs_f64()).clamp(SOONEST.as_secs_f64(), 3_600.0))
}

/// Passes notifications on, over connections as they come and go.
async fn listen(coordinator: &Coordinator, mut listener: Listener, sender: mpsc::Sender<Wake>) {
    loop {
        let wake = match listener.recv().await {
            Ok(Wakeup::Notified(Channel::Schedules, _)) => {
                coordinator.schedules.notify_one();
                continue;
            }
            Ok(Wakeup::Notified(_, bands)) => Wake::Notified(bands),
            Ok(Wakeup::Connected) => {
                coordinator.schedules.notify_one();
                Wake::Connected
            }
            Err(error) => {
                tracing::debug!(%error, "not listening");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if sender.send(wake).await.is_err() {
            return;
        }
    }
}

/// What has come in a band.
#[derive(Debug, PartialEq)]
struct Come {
    band: Band,
    /// So many tasks have just come that are due.
    tasks: Option<usize>,
    /// The first is due then.
    from: Option<DateTime<Utc>>,
}

impl Come {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let band = Band { lane: parts.next()?.parse().ok()?, priority: parts.next()?.parse().ok()? };
        let tasks = parts.next().filter(|tasks| !tasks.is_empty()).map(str::parse).transpose().ok()?;
        let micros: Option<i64> = parts.next().map(str::parse).transpose().ok()?;
        let from = micros.map(|micros| DateTime::from_timestamp_micros(micros).ok_or(())).transpose().ok()?;
        Some(Self { band, tasks, from })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_just_come_while_nothing_was_left_is_shared_out() {
        let mut watch = Watch::default();
        watch.heat(Some(0));
        assert_eq!((watch.hot, watch.came), (true, None), "what comes later is nobody's part");
        let mut watch = Watch::default();
        watch.heat(Some(3));
        watch.heat(Some(4));
        assert_eq!((watch.hot, watch.came), (true, Some(7)));
        watch.heat(None);
        assert_eq!(watch.came, None, "something may have been there before");
        watch.heat(Some(5));
        assert_eq!(watch.came, None);
    }

    #[test]
    fn notifications_name_bands_and_how_much_has_come() {
        let (band, at) = (Band { lane: 7, priority: 5 }, DateTime::from_timestamp(1_764_181_824, 5_000));
        assert_eq!(Come::parse("7:5"), Some(Come { band, tasks: None, from: None }));
        assert_eq!(Come::parse("7:5:100:1764181824000005"), Some(Come { band, tasks: Some(100), from: at }));
        assert_eq!(Come::parse("7:5::1764181824000005"), Some(Come { band, tasks: None, from: at }));
        for text in ["", "*", "7", "7:", "7:x", "7:5:-1", "7:5:1:", "7:5:1:x", "7:5:1:2:3", "7:5:1:9223372036854775807"]
        {
            assert_eq!(Come::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_committed_late_lowers_the_mark_and_what_comes_later_does_not() {
        let at = |ms| DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms);
        let id = uuid::Uuid::from_u128(7);
        let mark = Some(Mark { run_at: at(0), id });
        let mut watch = Watch { low_water: mark, ..Watch::default() };
        watch.lower(Some(at(5)));
        assert_eq!(watch.low_water, mark);
        watch.lower(Some(at(0)));
        assert_eq!(watch.low_water, Some(Mark::at(at(0))), "whatever the ids of what came at the same moment");
        watch.lower(Some(at(-300)));
        assert_eq!(watch.low_water, Some(Mark::at(at(-300))));
        watch.lower(None);
        assert_eq!(watch.low_water, Some(Mark::at(at(-1_300))));
        let mut watch = Watch::default();
        watch.lower(Some(at(0)));
        assert_eq!(watch.low_water, None, "the bottom");
    }
}
