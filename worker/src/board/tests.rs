//! The board under any order of events.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use taskmaster_openapi::report::{ReportCode, ReportResult, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::task::{TaskResult, Work};
use taskmaster_openapi::worker::{ReleaseCode, SubmitCode, SubmittedTask};
use uuid::Uuid;

use super::*;

const BOUNDS: Bounds = Bounds { slots: 2, queue_max: 3, outcomes_max: 4 };

fn task(number: u128, start_in_ms: f64) -> SubmittedTask {
    let work = Work::Command(String::new());
    SubmittedTask {
        task_id: Uuid::from_u128(number),
        claim: 1,
        attempt: 1,
        start_in_ms,
        timeout_ms: 1,
        work,
        traceparent: None,
        tracestate: None,
        try_always: false,
    }
}

fn leased(bounds: Bounds, now: Instant) -> Board {
    let mut board = Board::new(bounds);
    board.extend_lease(now + Duration::from_secs(3600));
    board
}

fn submit(board: &mut Board, task: SubmittedTask, now: Instant) -> SubmitCode {
    board.submit(vec![task], |_| true, now)[0].code
}

fn answers(reports: &[StatusReport], code: ReportCode) -> Vec<ReportResult> {
    reports.iter().map(|r| ReportResult::new(TaskClaim { task_id: r.task_id, claim: r.claim }, code)).collect()
}

#[test]
fn without_a_lease_nothing_is_taken_and_nothing_starts() {
    let now = Instant::now();
    let mut board = Board::new(BOUNDS);
    assert_eq!(submit(&mut board, task(1, 0.0), now), SubmitCode::Draining);
    board.extend_lease(now + Duration::from_millis(10));
    assert_eq!(submit(&mut board, task(1, 5.0), now), SubmitCode::Accepted);
    let late = now + Duration::from_millis(10);
    assert!(board.start_due(late).is_none() && board.next_look(late).is_none());
    // A heartbeat that was sent earlier and answered later does not shorten the lease.
    board.extend_lease(now + Duration::from_millis(30));
    board.extend_lease(now + Duration::from_millis(20));
    assert!(board.start_due(now + Duration::from_millis(25)).is_some());
}

#[test]
fn a_task_starts_at_its_time_and_not_a_nanosecond_before() {
    let now = Instant::now();
    let mut board = leased(BOUNDS, now);
    submit(&mut board, task(1, 0.5), now);
    let due = now + Duration::from_micros(500);
    assert!(board.start_due(due - Duration::from_nanos(1)).is_none());
    assert_eq!(board.next_look(now), Some(due));
    assert!(board.start_due(due).is_some());
}

#[test]
fn what_has_waited_for_a_slot_for_too_long_is_handed_back_and_what_waits_for_its_time_or_a_lease_is_not() {
    let now = Instant::now();
    let mut board = leased(Bounds { slots: 1, ..BOUNDS }, now);
    let patience_ms = letting_go::PATIENCE.as_millis() as f64;
    for task in [task(1, 0.0), task(2, 0.0), task(3, 10.0), task(4, patience_ms)] {
        assert_eq!(submit(&mut board, task, now), SubmitCode::Accepted);
    }
    let first = board.start_due(now).unwrap();
    let overdue = now + letting_go::PATIENCE;
    assert_eq!(board.next_look(now), Some(overdue));
    assert!(!board.hand_back_overdue(overdue - Duration::from_nanos(1)));
    assert!(board.hand_back_overdue(overdue) && !board.hand_back_overdue(overdue));
    let said = board.take_reports(10, overdue);
    let released = |report: &&StatusReport| report.status == ReportStatus::Released;
    let back: Vec<Uuid> = said.iter().filter(released).map(|report| report.task_id).collect();
    assert_eq!((back, board.counts().waiting), (vec![Uuid::from_u128(2)], 2));
    // With a slot there is no waiting for one.
    board.finish(first.claim(), Ending::Complete(None), overdue);
    let late = overdue + letting_go::PATIENCE * 2;
    assert!(!board.hand_back_overdue(late) && board.next_look(late) == Some(now + Duration::from_millis(10)));
    assert_eq!(board.start_due(late).unwrap().task.task_id, Uuid::from_u128(3));
}

#[test]
fn a_batch_of_reports_stays_below_its_size() {
    let now = Instant::now();
    let bounds = Bounds { slots: 300, queue_max: 0, outcomes_max: 1_000 };
    let mut board = leased(bounds, now);
    for number in 0..300 {
        submit(&mut board, task(number, 0.0), now);
        let started = board.start_due(now).unwrap();
        let result = TaskResult { stdout: Some("x".repeat(64 * 1024)), ..TaskResult::default() };
        board.finish(started.claim(), Ending::Complete(Some(result)), now);
    }
    let batch = board.take_reports(2_000, now);
    assert!((100..140).contains(&batch.len()), "{}", batch.len());
}

#[test]
fn memory_of_unacknowledged_outcomes_is_bounded() {
    let now = Instant::now();
    let mut board = leased(Bounds { slots: 1, queue_max: 9_000, outcomes_max: 10_000 }, now);
    (0..5_000).for_each(|number| assert_eq!(submit(&mut board, task(number, 0.0), now), SubmitCode::Accepted));
    let mut ended = 0;
    while let Some(started) = board.start_due(now) {
        let result = TaskResult { stdout: Some("x".repeat(64 * 1024)), ..TaskResult::default() };
        board.finish(started.claim(), Ending::Complete(Some(result)), now);
        ended += 1;
    }
    assert!((1_000..3_000).contains(&ended), "{ended}");
}

#[test]
fn memory_of_waiting_tasks_is_bounded() {
    let now = Instant::now();
    let mut board = leased(Bounds { slots: 1, queue_max: 9_000, outcomes_max: 10_000 }, now);
    let large = |number| SubmittedTask { work: Work::Command("x".repeat(128 * 1024)), ..task(number, 0.0) };
    let taken = (0..5_000).take_while(|number| submit(&mut board, large(*number), now) == SubmitCode::Accepted).count();
    assert!((1_000..1_100).contains(&taken), "{taken}");
    assert_eq!(board.room(), 0);
    board.start_due(now).unwrap();
    assert!(board.room() > 0);
}

/// What may happen to a board, in any order. Numbers choose among tasks.
#[derive(Debug, Clone)]
enum Event {
    Submit(u128, u32),
    Advance(u32),
    Start,
    Finish(u128, bool),
    Release(u128, bool),
    Stop(u128),
    Send(ReportCode),
    LoseAnswer,
    HandBack,
    Drain,
}

fn event() -> impl Strategy<Value = Event> {
    let number = 0..12u128;
    prop_oneof![
        4 => (number.clone(), 0..20u32).prop_map(|(n, ms)| Event::Submit(n, ms)),
        2 => (0..20u32).prop_map(Event::Advance),
        4 => Just(Event::Start),
        3 => (number.clone(), any::<bool>()).prop_map(|(n, stopped)| Event::Finish(n, stopped)),
        1 => (number.clone(), any::<bool>()).prop_map(|(n, stop)| Event::Release(n, stop)),
        1 => number.prop_map(Event::Stop),
        4 => prop_oneof![Just(ReportCode::Recorded), Just(ReportCode::NotRecorded), Just(ReportCode::StaleClaim)].prop_map(Event::Send),
        1 => Just(Event::LoseAnswer),
        1 => Just(Event::HandBack),
        1 => Just(Event::Drain),
    ]
}

/// A board, and what must be true of it.
struct Model {
    board: Board,
    now: Instant,
    running: HashSet<TaskClaim>,
    started: HashSet<TaskClaim>,
    accepted: HashSet<TaskClaim>,
}

impl Model {
    fn apply(&mut self, event: Event) {
        let claim = |number: u128| TaskClaim { task_id: Uuid::from_u128(number), claim: 1 };
        match event {
            Event::Submit(number, ms) => {
                let known = self.accepted.contains(&claim(number));
                let code = submit(&mut self.board, task(number, f64::from(ms)), self.now);
                assert_eq!(code == SubmitCode::AlreadyHeld, known, "a claim is taken once, also after its end");
                if code == SubmitCode::Accepted {
                    self.accepted.insert(claim(number));
                }
            }
            Event::Advance(ms) => self.now += Duration::from_millis(ms.into()),
            Event::Start => {
                if let Some(started) = self.board.start_due(self.now) {
                    assert!(self.started.insert(started.claim()), "a claim runs once");
                    self.running.insert(started.claim());
                }
            }
            Event::Finish(number, stopped) => {
                if self.running.remove(&claim(number)) {
                    let ending = if stopped { Ending::Stopped(None) } else { Ending::Complete(None) };
                    self.board.finish(claim(number), ending, self.now);
                }
            }
            Event::Release(number, stop) => {
                let code = self.board.release(&[claim(number)], stop)[0].code;
                let is_running = self.running.contains(&claim(number));
                assert!(!is_running || matches!(code, ReleaseCode::Running | ReleaseCode::Stopping));
            }
            Event::Stop(number) => self.board.stop(&[claim(number)], self.now),
            Event::Send(code) => {
                let batch = self.board.take_reports(3, self.now);
                self.check_reports(&batch);
                self.board.record(&batch, &answers(&batch, code));
            }
            Event::LoseAnswer => {
                let batch = self.board.take_reports(3, self.now);
                self.board.put_back(&batch);
            }
            Event::HandBack => {
                let waited = self.board.counts().waiting;
                self.now += letting_go::PATIENCE;
                let any = self.board.hand_back_overdue(self.now);
                assert_eq!(any, self.board.counts().waiting < waited);
                assert!(!any || self.running.len() == BOUNDS.slots);
            }
            Event::Drain => self.board.drain(self.now),
        }
    }

    fn check_reports(&self, batch: &[StatusReport]) {
        let claims: HashSet<_> = batch.iter().map(|report| (report.task_id, report.claim)).collect();
        assert_eq!(claims.len(), batch.len(), "a claim is named once in a batch");
        for report in batch {
            let claim = TaskClaim { task_id: report.task_id, claim: report.claim };
            let has_run = self.started.contains(&claim);
            assert_eq!(report.status == ReportStatus::Released, !has_run, "{report:?}");
            assert_eq!(report.status == ReportStatus::Started, self.running.contains(&claim), "{report:?}");
            assert_eq!(report.started_ms_ago.is_some(), has_run, "{report:?}");
        }
    }

    fn check(&self) {
        let counts = self.board.counts();
        assert_eq!(counts.running, self.running.len());
        assert!(counts.running <= BOUNDS.slots && counts.waiting <= BOUNDS.queue_max + BOUNDS.slots);
        assert_eq!(counts.waiting + counts.running + counts.ended, self.board.held_claims().len());
        assert!(counts.draining || counts.room + counts.waiting + counts.running == BOUNDS.slots + BOUNDS.queue_max);
        assert!(!counts.draining || counts.room == 0 && counts.waiting == 0);
    }
}

proptest! {
    #[test]
    fn whatever_happens_bounds_hold_and_every_claim_runs_at_most_once(events in prop::collection::vec(event(), 0..120)) {
        let now = Instant::now();
        let mut model = Model {
            board: leased(BOUNDS, now),
            now,
            running: HashSet::new(),
            started: HashSet::new(),
            accepted: HashSet::new(),
        };
        for event in events {
            model.apply(event);
            model.check();
        }
        // In the end everything can be brought to its end, and nothing stays behind.
        model.apply(Event::Drain);
        for number in 0..12 {
            model.apply(Event::Finish(number, false));
        }
        for _ in 0..20 {
            model.apply(Event::Send(ReportCode::Recorded));
        }
        prop_assert_eq!(model.board.held_claims().len(), 0);
        prop_assert_eq!((model.board.ended_bytes, model.board.waiting.bytes()), (0, 0));
    }
}
