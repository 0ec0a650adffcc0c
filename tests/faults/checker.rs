//! What must hold of every history, whatever broke meanwhile.

use std::collections::{HashMap, HashSet};

use taskmaster_openapi::event::EventType;
use taskmaster_openapi::gateway::StatusCounts;
use taskmaster_openapi::task::TaskStatus;
use uuid::Uuid;

use super::history::{Answer, Execution, History, Request, Row, Spec};

/// Workers a task may lose.
const LOST_WORKERS_MAX: i64 = 5;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// An accepted task is nowhere.
    Lost,
    /// A task is there twice.
    Doubled,
    /// A task that nobody asked for, or that was refused.
    Stray,
    /// Of a request that was not answered a part was stored, and a part was not.
    Partial,
    /// A task has not ended.
    Stuck,
    /// A task ended in a way that it could not.
    WrongEnd,
    /// COMPLETE without a run that succeeded.
    NeverRan,
    /// A run began after a cancel had been answered with 200; or such a task is not CANCELLED.
    RanAfterCancel,
    TooManyAttempts,
    /// A run began before the task's time.
    Early,
    /// Two runs at once, and no lease was lost.
    Overlap,
    /// Nothing was broken, and a claim was taken from its worker all the same.
    LostWithoutCause,
    /// A claim was run twice, or there were more runs than claims.
    ClaimRanTwice,
    /// Two outcomes were recorded for one claim.
    TwoOutcomes,
    /// `/v1/stats` counts something else than there is.
    Counters,
    /// The log of events has a gap.
    LogGap,
    /// A task's events do not follow from one another, or do not lead to its state.
    Transitions,
}

/// A rule that was broken, and by what.
#[derive(Debug, Clone)]
pub struct Violation {
    pub rule: Rule,
    pub task: Option<Uuid>,
    pub detail: String,
}

/// Checks the whole history.
pub fn check(history: &History) -> Vec<Violation> {
    let mut checker = Checker::new(history);
    checker.requests();
    checker.tasks();
    checker.counters();
    checker.log();
    checker.violations
}

/// Fails when anything is wrong, and shows as much of it as a person reads.
pub fn assert_whole(history: &History) {
    let violations = check(history);
    let shown: Vec<String> = violations.iter().take(20).map(|violation| explain(history, violation)).collect();
    assert!(violations.is_empty(), "{} violations, such as\n{}", violations.len(), shown.join("\n"));
}

/// A violation, and everything that is known of its task.
fn explain(history: &History, violation: &Violation) -> String {
    let Some(task) = violation.task else { return format!("{:?}: {}", violation.rule, violation.detail) };
    let mut lines = vec![format!("{:?} {task}: {}", violation.rule, violation.detail)];
    lines.extend(history.rows.iter().filter(|row| row.id == task).map(|row| format!("  {row:?}")));
    lines.extend(history.attempts.iter().filter(|row| row.task == task).map(|row| format!("  {row:?}")));
    lines.extend(history.executions.iter().filter(|run| run.task == task).map(|run| format!("  {run:?}")));
    lines.extend(history.cancels.iter().filter(|cancel| cancel.task == task).map(|cancel| format!("  {cancel:?}")));
    let events = history.events.iter().filter(|event| event.task_id == Some(task));
    lines.extend(events.map(|e| {
        let worker = e.worker_id.as_deref().unwrap_or("-");
        format!("  event {} {} {} attempt {:?} worker {worker}", e.id, e.at, e.event_type.as_str(), e.attempt)
    }));
    lines.join("\n")
}

struct Checker<'a> {
    history: &'a History,
    rows: HashMap<Uuid, &'a Row>,
    specs: HashMap<String, &'a Spec>,
    runs: HashMap<Uuid, Vec<&'a Execution>>,
    violations: Vec<Violation>,
}

/// The tag of a request's task.
pub fn tag(request: u64, place: usize) -> String {
    format!("{request}/{place}")
}

impl<'a> Checker<'a> {
    fn new(history: &'a History) -> Self {
        let each = |request: &'a Request| {
            request.tasks.iter().enumerate().map(|(place, spec)| (tag(request.number, place), spec))
        };
        let mut runs: HashMap<Uuid, Vec<&Execution>> = HashMap::new();
        for run in &history.executions {
            runs.entry(run.task).or_default().push(run);
        }
        runs.values_mut().for_each(|runs| runs.sort_by(|a, b| a.began.monotonic.total_cmp(&b.began.monotonic)));
        Self {
            history,
            rows: history.rows.iter().map(|row| (row.id, row)).collect(),
            specs: history.requests.iter().flat_map(each).collect(),
            runs,
            violations: Vec::new(),
        }
    }

    fn expect(&mut self, holds: bool, rule: Rule, task: impl Into<Option<Uuid>>, detail: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(Violation { rule, task: task.into(), detail: detail() });
        }
    }

    /// What was accepted is there once; what was refused is not; a batch is there in whole or not at all.
    fn requests(&mut self) {
        let history = self.history;
        let mut by_tag: HashMap<&str, Vec<&Row>> = HashMap::new();
        for row in &history.rows {
            let tag = row.tags.first().map(String::as_str).unwrap_or_default();
            by_tag.entry(tag).or_default().push(row);
            self.expect(self.specs.contains_key(tag), Rule::Stray, row.id, || format!("tag {tag:?}"));
        }
        let ids: HashSet<Uuid> = history.rows.iter().map(|row| row.id).collect();
        self.expect(ids.len() == history.rows.len(), Rule::Doubled, None, || "an id is there twice".into());
        for request in &history.requests {
            let found: Vec<&[&Row]> = (0..request.tasks.len())
                .map(|place| by_tag.get(tag(request.number, place).as_str()).map(Vec::as_slice).unwrap_or_default())
                .collect();
            let there = found.iter().filter(|rows| !rows.is_empty()).count();
            for rows in &found {
                self.expect(rows.len() <= 1, Rule::Doubled, rows.first().map(|row| row.id), || {
                    format!("{} tasks of one entry of request {}", rows.len(), request.number)
                });
            }
            match &request.answer {
                Answer::Accepted(ids) => {
                    for (id, rows) in ids.iter().zip(&found) {
                        self.expect(rows.iter().any(|row| row.id == *id), Rule::Lost, *id, || {
                            format!("accepted by request {}", request.number)
                        });
                    }
                }
                Answer::Refused => self.expect(there == 0, Rule::Stray, None, || {
                    format!("request {} was refused, and {there} of its tasks are there", request.number)
                }),
                Answer::Unknown => self.expect([0, request.tasks.len()].contains(&there), Rule::Partial, None, || {
                    format!("{there} of {} tasks of request {}", request.tasks.len(), request.number)
                }),
            }
        }
    }

    fn tasks(&mut self) {
        let history = self.history;
        let mut states: HashMap<Uuid, Followed> = HashMap::new();
        self.follow_events(&mut states);
        let mut attempts: HashMap<Uuid, Vec<(i64, i64)>> = HashMap::new();
        let mut timeouts: HashMap<Uuid, i64> = HashMap::new();
        for row in &history.attempts {
            attempts.entry(row.task).or_default().push((row.claim, row.attempt));
            if row.error.as_deref() == Some("timeout") {
                *timeouts.entry(row.task).or_default() += 1;
            }
        }
        let asked: HashSet<Uuid> = history.cancels_asked.iter().copied().collect();
        let (cancelled, waited) = (self.cancelled_at(), history.waited_in_vain());
        for row in &history.rows {
            let spec = row.tags.first().and_then(|tag| self.specs.get(tag)).copied();
            let followed = states.get(&row.id).copied().unwrap_or_default();
            let ended = !row.live && row.status.is_terminal();
            self.expect(ended, Rule::Stuck, row.id, || format!("{:?}", row.status));
            self.expect(followed.state == Some(row.status), Rule::Transitions, row.id, || {
                format!("the events end in {:?}, the task is {:?}", followed.state, row.status)
            });
            if ended && let Some(spec) = spec {
                self.end(row, spec, asked.contains(&row.id));
            }
            let attempts = attempts.get(&row.id).map(Vec::as_slice).unwrap_or_default();
            self.outcomes(row, attempts);
            let losses = row.lost_workers + row.hand_backs + timeouts.get(&row.id).copied().unwrap_or(0);
            self.runs(row, followed.picks, losses);
            // A worker that has not begun hands back what is cancelled, and what has waited for too long.
            let waited = waited.get(&row.id).copied().unwrap_or(0);
            let only_waited = losses == row.hand_backs && row.hand_backs <= waited;
            let cause = !history.calm || row.status == TaskStatus::Cancelled || only_waited;
            self.expect(cause || losses == 0, Rule::LostWithoutCause, row.id, || {
                format!("{losses} claims were lost, and nothing was broken")
            });
            if let Some(answered) = cancelled.get(&row.id) {
                let late =
                    self.runs.get(&row.id).and_then(|runs| runs.last()).map(|run| run.began.monotonic - answered);
                self.expect(late.is_none_or(|late| late <= 0.0), Rule::RanAfterCancel, row.id, || {
                    format!("{late:?} seconds after 200")
                });
                self.expect(row.status == TaskStatus::Cancelled, Rule::RanAfterCancel, row.id, || {
                    format!("200 was answered, and it is {:?}", row.status)
                });
            }
        }
    }

    /// When a cancel was first answered with 200.
    fn cancelled_at(&self) -> HashMap<Uuid, f64> {
        let mut first: HashMap<Uuid, f64> = HashMap::new();
        for cancel in self.history.cancels.iter().filter(|cancel| cancel.status == 200) {
            let at = first.entry(cancel.task).or_insert(cancel.answered.monotonic);
            *at = at.min(cancel.answered.monotonic);
        }
        first
    }

    /// A task ends as what it does makes it end, unless it was cancelled, or lost too many workers.
    fn end(&mut self, row: &Row, spec: &Spec, cancel_asked: bool) {
        let gave_up = row.error.as_deref() == Some("worker_lost") && row.lost_workers >= LOST_WORKERS_MAX;
        let right = match row.status {
            TaskStatus::Cancelled => cancel_asked,
            TaskStatus::Complete => !spec.poison && spec.fails < spec.max_attempts,
            TaskStatus::Failed => gave_up || (spec.fails >= spec.max_attempts && row.attempt == spec.max_attempts),
            _ => false,
        };
        self.expect(right, Rule::WrongEnd, row.id, || format!("{:?} after {spec:?}", row.status));
        let succeeded = self.runs.get(&row.id).is_some_and(|runs| runs.iter().any(|run| run.succeeded));
        let ran = row.status != TaskStatus::Complete || succeeded;
        self.expect(ran, Rule::NeverRan, row.id, || "COMPLETE, and no run succeeded".into());
        if let Some(asked) = spec.scheduled_at {
            let kept = asked.timestamp_micros() == row.scheduled_at.timestamp_micros();
            self.expect(kept, Rule::WrongEnd, row.id, || format!("scheduled_at is not what was asked for: {asked}"));
        }
    }

    fn outcomes(&mut self, row: &Row, attempts: &[(i64, i64)]) {
        let claims: HashSet<i64> = attempts.iter().map(|(claim, _)| *claim).collect();
        // A task that is cancelled while it waits keeps the number of its last claim.
        let last_again = row.status != TaskStatus::Cancelled && claims.contains(&row.claim);
        self.expect(claims.len() == attempts.len() && !last_again, Rule::TwoOutcomes, row.id, || {
            format!("claims of the attempts: {attempts:?}; of the task: {}", row.claim)
        });
        let highest = attempts.iter().map(|(_, attempt)| *attempt).chain([row.attempt]).max().unwrap_or(0);
        self.expect(highest <= row.max_attempts, Rule::TooManyAttempts, row.id, || format!("attempt {highest}"));
    }

    fn runs(&mut self, row: &Row, picks: usize, losses: i64) {
        let runs = self.runs.get(&row.id).cloned().unwrap_or_default();
        let mut claims = HashSet::new();
        for run in &runs {
            self.expect((1..=row.max_attempts).contains(&run.attempt), Rule::TooManyAttempts, row.id, || {
                format!("a run as attempt {}", run.attempt)
            });
            self.expect(run.began.wall >= row.scheduled_at, Rule::Early, row.id, || {
                format!("a run began at {}, its time was {}", run.began.wall, row.scheduled_at)
            });
            if let Some(claim) = run.claim {
                self.expect(claims.insert(claim), Rule::ClaimRanTwice, row.id, || format!("claim {claim}"));
            }
        }
        self.expect(runs.len() <= picks, Rule::ClaimRanTwice, row.id, || {
            format!("{} runs, and {picks} claims", runs.len())
        });
        let at_once = most_at_once(&runs);
        self.expect(at_once as i64 <= 1 + losses, Rule::Overlap, row.id, || {
            format!("{at_once} runs at once, and {losses} claims were lost")
        });
    }

    fn follow_events(&mut self, states: &mut HashMap<Uuid, Followed>) {
        let history = self.history;
        for event in &history.events {
            let Some(task) = event.task_id else { continue };
            self.expect(self.rows.contains_key(&task), Rule::Transitions, task, || {
                "events of a task that is not there".into()
            });
            let followed = states.entry(task).or_default();
            let before = followed.state;
            let legal = followed.follow(event.event_type);
            self.expect(legal, Rule::Transitions, task, || {
                format!("{} (event {}) in state {before:?}", event.event_type.as_str(), event.id)
            });
        }
    }

    fn counters(&mut self) {
        let mut counted = StatusCounts::default();
        for row in &self.history.rows {
            *counted.of_mut(row.status) += 1;
        }
        let told = self.history.counters;
        self.expect(told == counted, Rule::Counters, None, || format!("told {told:?}, there are {counted:?}"));
    }

    fn log(&mut self) {
        let mut next = 1;
        for (first, n) in &self.history.log_rows {
            self.expect(*first == next, Rule::LogGap, None, || format!("{first} follows {}", next - 1));
            next = first + i64::from(*n);
        }
    }
}

/// The most runs that were in progress at once. A run that nobody saw end goes on.
fn most_at_once(runs: &[&Execution]) -> usize {
    let ended = |run: &Execution| run.ended.map_or(f64::INFINITY, |ended| ended.monotonic);
    let at = |moment: f64| runs.iter().filter(|run| run.began.monotonic <= moment && ended(run) > moment).count();
    runs.iter().map(|run| at(run.began.monotonic)).max().unwrap_or(0)
}

/// A task's state as its events tell it.
#[derive(Debug, Clone, Copy, Default)]
struct Followed {
    state: Option<TaskStatus>,
    picks: usize,
}

impl Followed {
    /// Whether the event may happen in this state.
    fn follow(&mut self, event: EventType) -> bool {
        use TaskStatus::{Cancelled, Complete, Failed, Picked, Queued, Started};
        let before = self.state;
        let held = matches!(before, Some(Picked | Started));
        let (legal, next) = match event {
            EventType::TaskScheduled => (matches!(before, None | Some(Failed | Cancelled)), Queued),
            EventType::TaskPicked => (before == Some(Queued), Picked),
            EventType::TaskStarted => (before == Some(Picked), Started),
            EventType::TaskRetrying => (held, Queued),
            EventType::TaskCompleted => (before == Some(Started), Complete),
            EventType::TaskFailed => (held, Failed),
            EventType::TaskCancelled => (held || before == Some(Queued), Cancelled),
            EventType::WorkerJoined
            | EventType::WorkerLost
            | EventType::ScheduleMissed
            | EventType::ScheduleSkipped
            | EventType::SchedulePaused
            | EventType::ScheduleResumed
            | EventType::WebhookDisabled => return true,
        };
        self.picks += usize::from(event == EventType::TaskPicked);
        self.state = Some(next);
        legal
    }
}

mod tests {
    //! A good history passes; each way of being bad is found.

    use chrono::{DateTime, TimeDelta, Utc};
    use taskmaster_openapi::event::Event;

    use super::super::history::{AttemptRow, CancelAnswer, Stamp};
    use super::*;

    fn at(seconds: f64) -> Stamp {
        Stamp { monotonic: 1000.0 + seconds, wall: wall(seconds) }
    }

    fn wall(seconds: f64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds((seconds * 1000.0) as i64)
    }

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn run(task: u128, attempt: i64, began: f64, ended: f64, succeeded: bool) -> Execution {
        Execution { task: id(task), attempt, claim: None, began: at(began), ended: Some(at(ended)), succeeded }
    }

    fn row(task: u128, status: TaskStatus, attempt: i64, claim: i64) -> Row {
        Row {
            id: id(task),
            live: false,
            status,
            tags: vec![tag(task as u64, 0)],
            attempt,
            max_attempts: 3,
            lost_workers: 0,
            hand_backs: 0,
            claim,
            scheduled_at: wall(0.0),
            error: None,
        }
    }

    /// 1 succeeds at its second attempt, 2 is cancelled while it waits, 3 fails for good, 4 loses a worker and runs twice at once.
    fn good() -> History {
        use EventType::*;
        let fails = [1, 0, 3, 0];
        let request = |(n, fails): (usize, &i64)| {
            let number = n as u64 + 1;
            let spec = Spec { fails: *fails, ..Spec::default() };
            Request { number, tasks: vec![spec], answer: Answer::Accepted(vec![id(u128::from(number))]) }
        };
        let failed = Row { error: Some("http_status".into()), ..row(3, TaskStatus::Failed, 3, 5) };
        let rows = vec![
            row(1, TaskStatus::Complete, 2, 2),
            row(2, TaskStatus::Cancelled, 0, 0),
            failed,
            Row { lost_workers: 1, ..row(4, TaskStatus::Complete, 1, 7) },
        ];
        let attempt = |task, claim, attempt| AttemptRow { task: id(task), claim, attempt, error: None };
        let again = [TaskPicked, TaskStarted, TaskRetrying];
        let flow = |task: u128, types: &[EventType]| types.iter().map(|kind| (task, *kind)).collect::<Vec<_>>();
        let events = [
            flow(1, &[TaskScheduled]),
            flow(1, &again),
            flow(1, &[TaskPicked, TaskStarted, TaskCompleted]),
            flow(2, &[TaskScheduled, TaskCancelled]),
            flow(3, &[TaskScheduled]),
            flow(3, &again),
            flow(3, &again),
            flow(3, &[TaskPicked, TaskStarted, TaskFailed]),
            flow(4, &[TaskScheduled, TaskPicked, TaskRetrying, TaskPicked, TaskStarted, TaskCompleted]),
        ];
        let event = |(n, (task, event_type)): (usize, (u128, EventType))| Event {
            id: n as i64 + 1,
            event_type,
            at: wall(0.0),
            task_id: Some(id(task)),
            queue: None,
            attempt: None,
            worker_id: None,
            schedule_id: None,
            webhook_id: None,
        };
        let events: Vec<Event> = events.concat().into_iter().enumerate().map(event).collect();
        History {
            requests: fails.iter().enumerate().map(request).collect(),
            cancels_asked: vec![id(2)],
            cancels: vec![CancelAnswer { task: id(2), status: 200, answered: at(1.0) }],
            executions: vec![
                run(1, 1, 1.0, 2.0, false),
                run(1, 2, 2.0, 3.0, true),
                run(3, 1, 1.0, 2.0, false),
                run(3, 2, 2.0, 3.0, false),
                run(3, 3, 3.0, 4.0, false),
                run(4, 1, 1.0, 9.0, true),
                run(4, 1, 4.0, 5.0, true),
            ],
            rows,
            attempts: vec![attempt(1, 1, 1), attempt(3, 3, 1), attempt(3, 4, 2)],
            log_rows: vec![(1, 5), (6, events.len() as i32 - 5)],
            events,
            counters: StatusCounts { complete: 2, failed: 1, cancelled: 1, ..StatusCounts::default() },
            calm: false,
        }
    }

    #[track_caller]
    fn found(rule: Rule, spoil: impl FnOnce(&mut History)) {
        let mut history = good();
        spoil(&mut history);
        let violations = check(&history);
        assert!(violations.iter().any(|violation| violation.rule == rule), "{rule:?} is not among {violations:?}");
    }

    #[test]
    fn the_checker_passes_a_good_history() {
        assert_whole(&good());
    }

    #[test]
    fn the_checker_finds_tasks_that_are_lost_doubled_strange_or_half_stored() {
        found(Rule::Lost, |h| drop(h.rows.remove(0)));
        found(Rule::Lost, |h| h.rows[0].id = id(99));
        found(Rule::Doubled, |h| h.rows.push(h.rows[0].clone()));
        found(Rule::Doubled, |h| h.rows.push(Row { id: id(99), ..h.rows[0].clone() }));
        found(Rule::Stray, |h| h.rows[0].tags = vec!["99/0".into()]);
        found(Rule::Stray, |h| h.requests[0].answer = Answer::Refused);
        found(Rule::Partial, |h| {
            h.requests[0].answer = Answer::Unknown;
            h.requests[0].tasks.push(Spec::default());
        });
    }

    #[test]
    fn the_checker_lets_what_was_never_answered_be_there_or_not() {
        let mut history = good();
        history.requests[0].answer = Answer::Unknown;
        history.requests.push(Request { number: 50, tasks: vec![Spec::default()], answer: Answer::Unknown });
        assert_whole(&history);
    }

    #[test]
    fn the_checker_finds_tasks_that_did_not_end_or_ended_otherwise_than_they_can() {
        found(Rule::Stuck, |h| h.rows[0] = Row { live: true, status: TaskStatus::Started, ..h.rows[0].clone() });
        found(Rule::WrongEnd, |h| h.cancels_asked.clear());
        found(Rule::WrongEnd, |h| h.requests[0].tasks[0].fails = 3);
        found(Rule::WrongEnd, |h| h.rows[2].attempt = 2);
        found(Rule::WrongEnd, |h| h.requests[3].tasks[0].poison = true);
        found(Rule::WrongEnd, |h| h.requests[0].tasks[0].scheduled_at = Some(wall(-1.0)));
        found(Rule::NeverRan, |h| h.executions.retain(|run| run.task != id(1)));
        found(Rule::NeverRan, |h| h.executions[1].succeeded = false);
    }

    #[test]
    fn the_checker_finds_runs_after_a_cancel_that_was_answered_with_200() {
        let late = |h: &mut History| {
            h.cancels_asked.push(id(1));
            h.cancels.push(CancelAnswer { task: id(1), status: 200, answered: at(1.5) });
        };
        found(Rule::RanAfterCancel, late);
        found(Rule::RanAfterCancel, |h| {
            late(h);
            h.executions.remove(1);
        });
    }

    #[test]
    fn the_checker_finds_attempts_beyond_the_limit_and_early_ones() {
        found(Rule::TooManyAttempts, |h| h.executions[4].attempt = 4);
        found(Rule::TooManyAttempts, |h| h.attempts[2].attempt = 4);
        found(Rule::TooManyAttempts, |h| h.rows[2].attempt = 4);
        found(Rule::Early, |h| h.rows[0].scheduled_at = wall(1.5));
    }

    #[test]
    fn the_checker_finds_two_runs_at_once_unless_a_claim_was_lost() {
        found(Rule::Overlap, |h| h.executions[0].ended = Some(at(2.5)));
        found(Rule::Overlap, |h| h.executions[0].ended = None);
        found(Rule::Overlap, |h| h.rows[3].lost_workers = 0);
    }

    #[test]
    fn the_checker_finds_claims_that_were_taken_away_while_nothing_was_broken() {
        found(Rule::LostWithoutCause, |h| h.calm = true);
        let handed_back_after = |seconds: f64| {
            move |h: &mut History| {
                h.calm = true;
                (h.rows[3].lost_workers, h.rows[3].hand_backs) = (0, 1);
                h.executions.remove(5);
                let retrying =
                    |event: &&mut Event| event.task_id == Some(id(4)) && event.event_type == EventType::TaskRetrying;
                h.events.iter_mut().find(retrying).unwrap().at = wall(seconds);
            }
        };
        found(Rule::LostWithoutCause, handed_back_after(0.5));
        let mut waited = good();
        handed_back_after(1.0)(&mut waited);
        assert_whole(&waited);
    }

    #[test]
    fn the_checker_finds_claims_that_ran_twice_and_two_outcomes_of_one() {
        found(Rule::ClaimRanTwice, |h| h.executions.push(run(1, 2, 5.0, 6.0, true)));
        found(Rule::ClaimRanTwice, |h| {
            h.executions[0].claim = Some(1);
            h.executions[1].claim = Some(1);
        });
        found(Rule::TwoOutcomes, |h| h.attempts.push(h.attempts[0].clone()));
        found(Rule::TwoOutcomes, |h| h.attempts[0].claim = 2);
    }

    #[test]
    fn the_checker_finds_wrong_counters_gaps_in_the_log_and_illegal_transitions() {
        found(Rule::Counters, |h| h.counters.complete += 1);
        found(Rule::LogGap, |h| h.log_rows[1].0 += 1);
        found(Rule::Transitions, |h| drop(h.events.remove(0)));
        found(Rule::Transitions, |h| h.events.truncate(h.events.len() - 1));
        found(Rule::Transitions, |h| h.events.push(h.events[6].clone()));
        found(Rule::Transitions, |h| h.rows[0].status = TaskStatus::Failed);
    }
}
