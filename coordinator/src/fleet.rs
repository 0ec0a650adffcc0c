//! The workers at home with this coordinator: what each can do, what it holds, what room it has, and whose turn it is.
//! Takes `now` and returns values: no clock, no network, no database.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::time::Instant;

use taskmaster_openapi::coordinator::Abilities;
use taskmaster_openapi::report::TaskClaim;
use taskmaster_service::rate::Rate;
use taskmaster_store::claim::{Labels, Lane, is_system};

use crate::took::Took;

/// Besides its free slots, a worker is given what its slots get through in so long, by how long its tasks take.
const AHEAD_SECONDS: f64 = 0.2;
/// But no more than so many times what it did get through lately in that time: what there is little of goes to free slots, of
/// whatever coordinator.
const GROWTH: f64 = 2.0;
/// A worker that had no room when its turn came is owed its turns, so many at most: it is not to be given all that comes for
/// long after it was busy for long.
const OWED_MAX: u64 = 20;
/// While workers have work ahead, they are given more once there is room for such a part of what all of them may have ahead: a
/// claim is a statement and a push a request, whatever the number of tasks.
const WORTH_A_CLAIM: usize = 4;

/// A worker at home here.
#[derive(Debug)]
pub struct Member {
    pub address: String,
    pub push_secret: String,
    pub abilities: Abilities,
    pub labels: Labels,
    slots: usize,
    /// What it said it would hold at most.
    capacity: usize,
    /// What it was given and has not ended.
    outstanding: HashMap<TaskClaim, Given>,
    rate: Rate,
    took: Took,
    /// The turns it has had, counted from those of the others when it joined.
    turns: u64,
    /// It gets nothing (draining, moving to another home, not answering).
    closed: bool,
}

/// A task that a worker was given.
#[derive(Debug, Clone, Copy)]
struct Given {
    at: Instant,
    /// Its lane, where it was given here; what a heartbeat named may be of any.
    lane: Option<i32>,
    /// The worker said that it has it. Until then it is on its way, and its dispatcher's to see to.
    taken: bool,
}

/// What a worker may be given.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    tasks: usize,
    /// So many may wait for its slots.
    ahead: usize,
}

/// What a heartbeat says of a worker.
#[derive(Debug, Clone)]
pub struct Sign {
    pub address: String,
    pub push_secret: String,
    pub abilities: Abilities,
    pub labels: Labels,
    pub slots: usize,
    pub room: usize,
    pub held: Vec<TaskClaim>,
    pub closed: bool,
}

/// The workers at home here.
#[derive(Debug, Default)]
pub struct Fleet {
    members: BTreeMap<String, Member>,
    /// The most turns that one of them has had.
    most_turns: u64,
}

/// Workers that can run the same lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub lanes: Vec<i32>,
    pub workers: Vec<String>,
}

impl Member {
    fn room(&self, now: Instant) -> Room {
        if self.closed {
            return Room::default();
        }
        let ahead = self.ahead(now).min(self.capacity.saturating_sub(self.slots));
        let tasks = (self.slots + ahead).min(self.capacity).saturating_sub(self.outstanding.len());
        Room { tasks, ahead }
    }

    /// How many tasks may wait for its slots.
    fn ahead(&self, now: Instant) -> usize {
        let it_did = self.rate.get(now) * GROWTH;
        let it_can = self.slots as f64 / self.took.seconds();
        (it_did.min(it_can) * AHEAD_SECONDS).floor() as usize
    }

    /// The turns it has had, without what it is owed beyond measure.
    fn turns_within(&self, most_turns: u64) -> u64 {
        self.turns.max(most_turns.saturating_sub(OWED_MAX))
    }

    fn serves(&self, lane: &Lane) -> bool {
        lane.key.is_served_by(&self.abilities, &self.labels)
    }
}

impl Fleet {
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Workers that are given tasks.
    pub fn open(&self) -> usize {
        self.members.values().filter(|member| !member.closed).count()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn get(&self, worker_id: &str) -> Option<&Member> {
        self.members.get(worker_id)
    }

    /// The slots of a worker, and how many tasks it was given and has not ended.
    pub fn slots_and_out(&self, worker_id: &str) -> Option<(i32, i32)> {
        let member = self.members.get(worker_id)?;
        Some((
            i32::try_from(member.slots).unwrap_or(i32::MAX),
            i32::try_from(member.outstanding.len()).unwrap_or(i32::MAX),
        ))
    }

    pub fn ids(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// A heartbeat: the worker is here, or is here again. What it holds it has taken. What was not given here counts as given now
    /// when the worker joins, and not later: a heartbeat names what the worker held when it sent it, and what was given here and
    /// ended meanwhile would be held for ever.
    pub fn sign(&mut self, worker_id: &str, sign: Sign, now: Instant) {
        let (joins, most_turns) = (!self.members.contains_key(worker_id), self.most_turns);
        let member = self.members.entry(worker_id.to_owned()).or_insert_with(|| Member {
            address: String::new(),
            push_secret: String::new(),
            abilities: sign.abilities.clone(),
            labels: Labels::new(),
            slots: 0,
            capacity: 0,
            outstanding: HashMap::new(),
            rate: Rate::new(now),
            took: Took::default(),
            turns: most_turns,
            closed: false,
        });
        member.capacity = sign.room + sign.held.len();
        if joins {
            let given = Given { at: now, lane: None, taken: true };
            member.outstanding.extend(sign.held.into_iter().map(|claim| (claim, given)));
        } else {
            for claim in &sign.held {
                if let Some(given) = member.outstanding.get_mut(claim) {
                    given.taken = true;
                }
            }
        }
        member.address = sign.address;
        member.push_secret = sign.push_secret;
        member.abilities = sign.abilities;
        member.labels = sign.labels;
        member.slots = sign.slots;
        member.closed = sign.closed;
    }

    /// The worker had no room for so many of those that it was given: until its next heartbeat it holds no more than the others.
    pub fn fill(&mut self, worker_id: &str, refused: usize) {
        if let Some(member) = self.members.get_mut(worker_id) {
            member.capacity = member.capacity.min(member.outstanding.len().saturating_sub(refused));
        }
    }

    /// The worker gets nothing until its next heartbeat.
    pub fn close(&mut self, worker_id: &str) {
        if let Some(member) = self.members.get_mut(worker_id) {
            member.closed = true;
        }
    }

    /// The worker is not at home here any more. Gives back what it held.
    pub fn remove(&mut self, worker_id: &str) -> Vec<TaskClaim> {
        self.members.remove(worker_id).map(|member| member.outstanding.into_keys().collect()).unwrap_or_default()
    }

    /// The worker was given a task.
    pub fn give(&mut self, worker_id: &str, claim: TaskClaim, lane: i32, now: Instant) {
        if let Some(member) = self.members.get_mut(worker_id) {
            member.outstanding.insert(claim, Given { at: now, lane: Some(lane), taken: false });
            member.turns = member.turns_within(self.most_turns) + 1;
            self.most_turns = self.most_turns.max(member.turns);
        }
    }

    /// The worker said that it has taken these.
    pub fn take(&mut self, worker_id: &str, claims: &HashSet<TaskClaim>, now: Instant) {
        let Some(member) = self.members.get_mut(worker_id) else { return };
        for (_, given) in member.outstanding.iter_mut().filter(|(claim, _)| claims.contains(claim)) {
            (given.at, given.taken) = (now, true);
        }
    }

    /// Whether the worker was given this, and has neither taken nor ended it, as far as is known.
    pub fn is_on_its_way(&self, worker_id: &str, claim: &TaskClaim) -> bool {
        self.members.get(worker_id).and_then(|member| member.outstanding.get(claim)).is_some_and(|given| !given.taken)
    }

    /// The worker does not hold these any more. Gives back which of them were given here.
    pub fn settle(&mut self, worker_id: &str, claims: &[TaskClaim]) -> Vec<TaskClaim> {
        let Some(member) = self.members.get_mut(worker_id) else { return Vec::new() };
        let mut had: Vec<(TaskClaim, Given)> =
            claims.iter().filter_map(|claim| Some((*claim, member.outstanding.remove(claim)?))).collect();
        had.retain(|(_, given)| given.lane.is_some());
        had.into_iter().map(|(claim, _)| claim).collect()
    }

    /// The worker's slots got through so many tasks, and these took so long of which that is known.
    pub fn note_work(&mut self, worker_id: &str, tasks: usize, took_seconds: &[f64], now: Instant) {
        if let Some(member) = self.members.get_mut(worker_id) {
            member.rate.add(tasks, now);
            took_seconds.iter().for_each(|seconds| member.took.add(*seconds));
        }
    }

    /// The lane of what the worker was given here, and has not ended.
    pub fn lane_of(&self, worker_id: &str, claim: &TaskClaim) -> Option<i32> {
        self.members.get(worker_id)?.outstanding.get(claim)?.lane
    }

    /// How many tasks of each lane of a system queue are out.
    pub fn out_of_system_lanes(&self) -> HashMap<i32, usize> {
        let mut out = HashMap::new();
        let given = self.members.values().flat_map(|member| member.outstanding.values());
        for lane in given.filter_map(|given| given.lane).filter(|lane| is_system(*lane)) {
            *out.entry(lane).or_default() += 1;
        }
        out
    }

    /// Slots of the workers that make HTTP requests.
    pub fn http_slots(&self) -> usize {
        self.members.values().filter(|member| !member.closed && member.abilities.http).map(|member| member.slots).sum()
    }

    /// What the worker does not hold, of what it took before `taken_before`, or held when it joined before `joined_before`: that was not
    /// given here, and may have ended elsewhere since.
    pub fn missing(
        &self,
        worker_id: &str,
        held: &[TaskClaim],
        taken_before: Instant,
        joined_before: Instant,
    ) -> Vec<TaskClaim> {
        let Some(member) = self.members.get(worker_id) else { return Vec::new() };
        let holds: HashSet<&TaskClaim> = held.iter().collect();
        let before = |given: &Given| if given.lane.is_some() { taken_before } else { joined_before };
        let missing =
            |(claim, given): &(&TaskClaim, &Given)| given.taken && given.at < before(given) && !holds.contains(claim);
        member.outstanding.iter().filter(missing).map(|(claim, _)| *claim).collect()
    }

    /// Workers by what they can run; those that can run none of the lanes are left out.
    pub fn groups(&self, lanes: &[Lane]) -> Vec<Group> {
        let mut groups: BTreeMap<Vec<i32>, Vec<String>> = BTreeMap::new();
        for (id, member) in &self.members {
            let served: Vec<i32> = lanes.iter().filter(|lane| member.serves(lane)).map(|lane| lane.id).collect();
            if !served.is_empty() {
                groups.entry(served).or_default().push(id.clone());
            }
        }
        groups.into_iter().map(|(lanes, workers)| Group { lanes, workers }).collect()
    }

    /// The room of each of these workers: that of those with nothing ahead only, until there is enough of all.
    fn rooms_worth_a_claim(&self, workers: &[String], max: usize, now: Instant) -> Vec<usize> {
        let room = |id: &String| self.members.get(id).map(|member| member.room(now)).unwrap_or_default();
        let rooms: Vec<Room> = workers.iter().map(room).collect();
        let ahead: usize = rooms.iter().map(|room| room.ahead).sum();
        let tasks: usize = rooms.iter().map(|room| room.tasks).sum();
        let is_enough = tasks >= max.min(ahead / WORTH_A_CLAIM);
        let has_work_ahead = |room: &Room| room.tasks < room.ahead;
        rooms.iter().map(|room| if is_enough || !has_work_ahead(room) { room.tasks } else { 0 }).collect()
    }

    /// Seats for at most `max` tasks, each the place of its worker among these: one after another to the workers in turn, each
    /// within its room. The turn is always that of the worker which has had the fewest.
    pub fn seats(&self, workers: &[String], max: usize, now: Instant) -> Vec<usize> {
        let member = |id: &String| self.members.get(id);
        let mut rooms = self.rooms_worth_a_claim(workers, max, now);
        let turns = |(at, id): (usize, &String)| Some(Reverse((member(id)?.turns_within(self.most_turns), at)));
        let mut order: BinaryHeap<Reverse<(u64, usize)>> = workers.iter().enumerate().filter_map(turns).collect();
        let mut seats = Vec::new();
        while seats.len() < max {
            let Some(Reverse((turns, at))) = order.pop() else { break };
            if rooms[at] > 0 {
                rooms[at] -= 1;
                seats.push(at);
                order.push(Reverse((turns + 1, at)));
            }
        }
        seats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;
    use taskmaster_store::claim::{Kind, LaneKey};
    use uuid::Uuid;

    fn abilities(commands: bool, queues: &[&str]) -> Abilities {
        Abilities { commands, http: true, http_rules: false, queues: queues.iter().map(|q| (*q).to_owned()).collect() }
    }

    fn sign(slots: usize, abilities: Abilities) -> Sign {
        let (address, push_secret, labels) = (String::new(), String::new(), Labels::new());
        Sign { address, push_secret, abilities, labels, slots, room: 1_000, held: Vec::new(), closed: false }
    }

    fn claim(number: i64) -> TaskClaim {
        TaskClaim { task_id: Uuid::from_u128(number as u128), claim: number }
    }

    fn fleet(slots: &[usize], now: Instant) -> (Fleet, Vec<String>) {
        let mut fleet = Fleet::default();
        for (i, slots) in slots.iter().enumerate() {
            fleet.sign(&format!("w{i:02}"), sign(*slots, abilities(true, &[])), now);
        }
        let ids = fleet.ids();
        (fleet, ids)
    }

    #[test]
    fn idle_workers_take_turns_across_claims() {
        let now = Instant::now();
        let (mut fleet, ids) = fleet(&[5, 5, 5], now);
        let mut given = Vec::new();
        for number in 0..9 {
            let seat = fleet.seats(&ids, 1, now).remove(0);
            fleet.give(&ids[seat], claim(number), 1, now);
            given.push(seat);
        }
        assert_eq!(given, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_worker_that_had_no_room_is_owed_its_turns_but_not_all_that_it_missed() {
        let now = Instant::now();
        let (mut fleet, ids) = fleet(&[4, 100], now);
        let mut numbers = 0..;
        let mut give = |fleet: &mut Fleet, count: usize| {
            let seats = fleet.seats(&ids, count, now);
            let given = seats.iter().map(|place| (ids[*place].clone(), claim(numbers.next().unwrap())));
            let given: Vec<(String, TaskClaim)> = given.collect();
            given.iter().for_each(|(id, claim)| fleet.give(id, *claim, 1, now));
            given
        };
        let of = |given: &[(String, TaskClaim)], id: &str| given.iter().filter(|(to, _)| to == id).count();
        // Of 10 it has room for 4.
        let first = give(&mut fleet, 10);
        assert_eq!((of(&first, "w00"), of(&first, "w01")), (4, 6));
        let settle = |fleet: &mut Fleet, given: &[(String, TaskClaim)]| {
            given.iter().for_each(|(id, claim)| drop(fleet.settle(id, &[*claim])))
        };
        settle(&mut fleet, &first);
        // The two that it is owed, and then in turn.
        let next = give(&mut fleet, 4);
        assert_eq!((of(&next, "w00"), of(&next, "w01")), (3, 1));
        // It is busy while the other has 80: it is not owed as many.
        let more = give(&mut fleet, 81);
        assert_eq!((of(&more, "w00"), of(&more, "w01")), (1, 80));
        settle(&mut fleet, &[next, more].concat());
        let owed: usize = (0..10)
            .map(|_| {
                let given = give(&mut fleet, 4);
                settle(&mut fleet, &given);
                of(&given, "w00")
            })
            .sum();
        assert_eq!(owed, 20 + 10);
    }

    #[test]
    fn a_worker_is_given_no_more_than_its_slots_and_twice_what_it_lately_did_in_a_fifth_of_a_second() {
        let now = Instant::now();
        let (mut fleet, ids) = fleet(&[5], now);
        assert_eq!(fleet.seats(&ids, 100, now).len(), 5);
        for number in 0..100 {
            fleet.give("w00", claim(number), 1, now);
        }
        let done: Vec<TaskClaim> = (0..100).map(claim).collect();
        assert_eq!(fleet.settle("w00", &done).len(), 100);
        // What goes back unstarted says nothing of what it gets through.
        assert_eq!(fleet.seats(&ids, 1_000, now).len(), 5);
        fleet.note_work("w00", 100, &[], now);
        assert_eq!(fleet.seats(&ids, 1_000, now).len(), 5 + 200);
    }

    #[test]
    fn what_takes_long_does_not_wait_for_slots_however_many_ended_together() {
        let now = Instant::now();
        let (mut fleet, ids) = fleet(&[5], now);
        let settle_five = |fleet: &mut Fleet, seconds: f64| {
            (0..5).for_each(|number| fleet.give("w00", claim(number), 1, now));
            fleet.note_work("w00", 5, &[seconds; 5], now);
            fleet.settle("w00", &(0..5).map(claim).collect::<Vec<_>>());
        };
        settle_five(&mut fleet, 10.0);
        assert_eq!(fleet.seats(&ids, 100, now).len(), 5);
        // Its tasks are short again: five slots get through one of 10 ms each in so long.
        (0..100).for_each(|_| settle_five(&mut fleet, 0.01));
        let seats = fleet.seats(&ids, 1_000, now).len();
        assert!((5 + 99..=5 + 100).contains(&seats), "{seats}");
    }

    #[test]
    fn a_worker_with_work_ahead_is_given_more_in_parts_that_are_worth_a_claim() {
        let now = Instant::now();
        let (mut fleet, ids) = fleet(&[5], now);
        let give = |fleet: &mut Fleet, numbers: std::ops::Range<i64>| {
            numbers.for_each(|n| fleet.give("w00", claim(n), 1, now))
        };
        give(&mut fleet, 0..100);
        fleet.settle("w00", &(0..100).map(claim).collect::<Vec<_>>());
        fleet.note_work("w00", 100, &[], now);
        // Its slots, and 200 ahead.
        give(&mut fleet, 100..305);
        fleet.settle("w00", &(100..149).map(claim).collect::<Vec<_>>());
        assert_eq!(fleet.seats(&ids, 1_000, now).len(), 0);
        fleet.settle("w00", &[claim(149)]);
        assert_eq!(fleet.seats(&ids, 1_000, now).len(), 50);
        // Later it counts as slow: it has nothing ahead, and each free slot is given something.
        let later = now + Duration::from_secs(5);
        fleet.settle("w00", &(150..301).map(claim).collect::<Vec<_>>());
        assert_eq!(fleet.seats(&ids, 1_000, later).len(), 1);
    }

    #[test]
    fn workers_with_work_ahead_are_given_more_together_and_one_with_none_at_once() {
        let now = Instant::now();
        let (mut fleet, ids) = fleet(&[5, 5], now);
        let claims = |numbers: std::ops::Range<i64>| numbers.map(claim).collect::<Vec<_>>();
        for id in &ids {
            claims(0..100).into_iter().for_each(|claim| fleet.give(id, claim, 1, now));
            fleet.settle(id, &claims(0..100));
            fleet.note_work(id, 100, &[], now);
            // Its slots, and 200 ahead.
            claims(0..205).into_iter().for_each(|claim| fleet.give(id, claim, 1, now));
        }
        fleet.settle("w00", &claims(0..60));
        fleet.settle("w01", &claims(0..39));
        assert_eq!(fleet.seats(&ids, 1_000, now).len(), 0);
        fleet.sign("w02", sign(5, abilities(true, &[])), now);
        let ids = fleet.ids();
        claims(205..210).into_iter().for_each(|claim| fleet.give("w00", claim, 1, now));
        assert_eq!(fleet.seats(&ids, 1_000, now), [2; 5]);
        fleet.settle("w01", &claims(39..45));
        assert_eq!(fleet.seats(&ids, 1_000, now).len(), 55 + 45 + 5);
        assert_eq!(fleet.seats(&ids, 80, now).len(), 80);
    }

    #[test]
    fn a_closed_worker_gets_nothing_until_its_next_heartbeat() {
        let now = Instant::now();
        let (mut fleet, ids) = fleet(&[2, 2], now);
        fleet.close("w00");
        assert_eq!(fleet.seats(&ids, 100, now), [1, 1]);
        fleet.sign("w00", sign(2, abilities(true, &[])), now);
        assert_eq!(fleet.seats(&ids, 100, now).len(), 4);
    }

    fn labels(words: &[(&str, &str)]) -> Labels {
        words.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn lane(id: i32, queue: &str, kind: Kind, requires: &[(&str, &str)]) -> Lane {
        Lane { id, key: LaneKey { queue: queue.into(), kind, requires: labels(requires) } }
    }

    #[test]
    fn lanes_go_to_the_workers_that_serve_them() {
        let now = Instant::now();
        let mut fleet = Fleet::default();
        fleet.sign("all", sign(1, abilities(true, &[])), now);
        fleet.sign("http", sign(1, abilities(false, &[])), now);
        fleet.sign("mail", sign(1, abilities(false, &["mail"])), now);
        let lanes = [
            lane(1, "default", Kind::Http, &[]),
            lane(2, "default", Kind::Command, &[]),
            lane(3, "mail", Kind::Http, &[]),
        ];
        let mut groups = fleet.groups(&lanes);
        groups.sort_by_key(|g| g.lanes.len());
        let lanes: Vec<Vec<i32>> = groups.iter().map(|g| g.lanes.clone()).collect();
        assert_eq!(lanes, [vec![3], vec![1, 3], vec![1, 2, 3]]);
    }

    #[test]
    fn lanes_that_require_labels_go_to_the_workers_that_have_them_now() {
        let now = Instant::now();
        let mut fleet = Fleet::default();
        let with = |words: &[(&str, &str)]| Sign { labels: labels(words), ..sign(1, abilities(true, &[])) };
        fleet.sign("eu", with(&[("zone", "eu")]), now);
        fleet.sign("eu-gpu", with(&[("gpu", "a100"), ("zone", "eu")]), now);
        fleet.sign("plain", with(&[]), now);
        let lanes = [
            lane(1, "default", Kind::Command, &[]),
            lane(2, "default", Kind::Command, &[("zone", "eu")]),
            lane(3, "default", Kind::Command, &[("gpu", "a100"), ("zone", "eu")]),
            lane(4, "default", Kind::Command, &[("zone", "us")]),
        ];
        let served = |fleet: &Fleet, id: &str| {
            let of_it = |group: &Group| group.workers.iter().any(|worker| worker == id);
            fleet.groups(&lanes).into_iter().find(of_it).map(|group| group.lanes).unwrap_or_default()
        };
        assert_eq!(served(&fleet, "eu"), [1, 2]);
        assert_eq!(served(&fleet, "eu-gpu"), [1, 2, 3]);
        assert_eq!(served(&fleet, "plain"), [1]);
        // A heartbeat may bring other labels.
        fleet.sign("plain", with(&[("zone", "us")]), now);
        assert_eq!(served(&fleet, "plain"), [1, 4]);
    }

    #[test]
    fn what_a_worker_took_and_does_not_hold_is_missing_and_what_is_on_its_way_is_not() {
        let now = Instant::now();
        let (mut fleet, _) = fleet(&[5], now);
        for number in 1..=4 {
            fleet.give("w00", claim(number), 1, now);
        }
        fleet.take("w00", &HashSet::from([claim(1), claim(2)]), now);
        let later = now + Duration::from_secs(10);
        fleet.take("w00", &HashSet::from([claim(3)]), later);
        assert_eq!(fleet.missing("w00", &[claim(1), claim(9)], later, later), [claim(2)]);
        assert!(fleet.is_on_its_way("w00", &claim(4)) && !fleet.is_on_its_way("w00", &claim(3)));
    }

    #[test]
    fn what_a_heartbeat_names_has_been_taken() {
        let now = Instant::now();
        let (mut fleet, _) = fleet(&[5], now);
        fleet.give("w00", claim(1), 1, now);
        fleet.sign("w00", Sign { held: vec![claim(1)], ..sign(5, abilities(true, &[])) }, now);
        assert!(!fleet.is_on_its_way("w00", &claim(1)));
        let later = now + Duration::from_secs(1);
        assert_eq!(fleet.missing("w00", &[], later, now), [claim(1)]);
        assert_eq!(fleet.missing("w00", &[], now, later), [], "it was given here");
    }

    #[test]
    fn what_a_worker_holds_when_it_joins_was_given_elsewhere_and_takes_room() {
        let now = Instant::now();
        let mut fleet = Fleet::default();
        fleet.sign("w00", Sign { held: vec![claim(1), claim(2)], ..sign(5, abilities(true, &[])) }, now);
        assert_eq!(fleet.seats(&fleet.ids(), 100, now).len(), 3);
        let elsewhere = fleet.settle("w00", &[claim(2)]);
        assert_eq!(elsewhere, [], "what a heartbeat names was not given here for that");
        let later = now + Duration::from_secs(1);
        assert_eq!(fleet.missing("w00", &[], later, now), []);
        assert_eq!(fleet.missing("w00", &[], now, later), [claim(1)]);
    }

    #[test]
    fn a_worker_that_had_no_room_is_given_what_it_took_and_no_more_until_its_next_heartbeat() {
        let now = Instant::now();
        let (mut fleet, ids) = fleet(&[5], now);
        (0..5).for_each(|number| fleet.give("w00", claim(number), 1, now));
        fleet.fill("w00", 2);
        assert_eq!(fleet.settle("w00", &[claim(3), claim(4)]).len(), 2, "the two that it did not take");
        assert_eq!(fleet.seats(&ids, 100, now).len(), 0);
        fleet.settle("w00", &[claim(0)]);
        assert_eq!(fleet.seats(&ids, 100, now).len(), 1, "in place of one that has ended");
        fleet.sign("w00", Sign { room: 3, held: vec![claim(1), claim(2)], ..sign(5, abilities(true, &[])) }, now);
        assert_eq!(fleet.seats(&ids, 100, now).len(), 3);
    }

    #[test]
    fn what_ended_while_a_heartbeat_was_on_its_way_takes_no_room() {
        let now = Instant::now();
        let (mut fleet, ids) = fleet(&[5], now);
        fleet.give("w00", claim(1), 1, now);
        fleet.settle("w00", &[claim(1)]);
        fleet.sign("w00", Sign { held: vec![claim(1)], ..sign(5, abilities(true, &[])) }, now);
        assert_eq!(fleet.seats(&ids, 100, now).len(), 5);
        let later = now + Duration::from_secs(1);
        assert_eq!(fleet.missing("w00", &[], later, later), []);
    }

    proptest! {
        #[test]
        fn seats_are_within_room_and_differ_by_at_most_one_between_workers_with_room(
            slots in prop::collection::vec(0..20usize, 1..8), max in 0..100usize,
        ) {
            let now = Instant::now();
            let (fleet, ids) = fleet(&slots, now);
            let seats = fleet.seats(&ids, max, now);
            prop_assert_eq!(seats.len(), max.min(slots.iter().sum()));
            let counts: Vec<usize> = (0..ids.len()).map(|at| seats.iter().filter(|s| **s == at).count()).collect();
            let most = counts.iter().max().copied().unwrap_or(0);
            for (count, room) in counts.iter().zip(&slots) {
                prop_assert!(count <= room && (count == room || count + 1 >= most));
            }
        }
    }
}
