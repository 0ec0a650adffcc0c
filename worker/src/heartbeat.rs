//! Heartbeats: joining, staying known, following home, and hearing what to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use taskmaster_openapi::client::{ClientError, CoordinatorClient};
use taskmaster_openapi::coordinator::{Abilities, HeartbeatRequest, HeartbeatResponse};
use taskmaster_service::pause::Pause;
use taskmaster_service::{Health, Secret, Shutdown};

use crate::address::Advertised;
use crate::link::Link;
use crate::slots::Slots;

/// Until a coordinator says otherwise; the reference's figure.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// Whatever a coordinator says, heartbeats are no closer than this.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// First wait after all coordinators have failed.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest wait after all coordinators have failed.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// What the worker waits for in `/readyz`.
pub(crate) const COORDINATOR: &str = "coordinator";

/// What of a worker stays the same from heartbeat to heartbeat.
#[derive(Debug)]
pub(crate) struct Profile {
    pub worker_id: String,
    pub advertised: Advertised,
    pub slots: i64,
    pub abilities: Abilities,
    pub labels: Vec<(String, String)>,
    pub push_secret: Secret,
    pub join_token: Secret,
}

/// Sends the heartbeats of one worker.
#[derive(Debug)]
pub(crate) struct Heart {
    pub profile: Arc<Profile>,
    pub client: CoordinatorClient,
    pub link: Arc<Link>,
    pub slots: Arc<Slots>,
    pub health: Health,
    /// Requested when a coordinator asks the worker to leave.
    pub leave: Shutdown,
}

impl Heart {
    /// Sends heartbeats until stopped; tries for ever when nobody answers.
    pub async fn run(self, stop: Shutdown) {
        let mut pause = Pause::new(PAUSE_FIRST, PAUSE_MAX);
        let mut had_lease = false;
        while !stop.is_requested() {
            let began = tokio::time::Instant::now();
            let Some(outcome) = stop.or_stop(self.beat()).await else { return };
            let next = match outcome {
                Ok(interval) => {
                    self.health.available(COORDINATOR);
                    pause.reset();
                    began + interval
                }
                Err(reason) => {
                    self.health.waiting(COORDINATOR, reason);
                    tokio::time::Instant::now() + pause.next_wait()
                }
            };
            had_lease = self.log_lease(had_lease);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.link.beat_now.notified() => {}
                () = stop.requested() => {}
            }
        }
    }

    /// Says once when the lease has run out.
    fn log_lease(&self, had_lease: bool) -> bool {
        let has_lease = self.slots.board().has_lease(Instant::now());
        if had_lease && !has_lease {
            tracing::warn!(
                "no coordinator has answered for the length of the lease: no task is started until one does"
            );
        }
        has_lease
    }

    /// One heartbeat, to the first coordinator that answers. The time to the next one, or why nobody answered.
    async fn beat(&self) -> Result<Duration, String> {
        let mut first_reason = None;
        for address in self.link.candidates() {
            match self.beat_at(&address).await {
                Ok((sent, answer)) => return Ok(self.acknowledged(&address, sent, &answer)),
                Err(reason) => {
                    tracing::debug!(coordinator = address, reason, "a heartbeat failed");
                    first_reason.get_or_insert(reason);
                }
            }
        }
        Err(first_reason.unwrap_or_default())
    }

    /// A heartbeat to one coordinator; joins when there is no token, or when it is refused.
    async fn beat_at(&self, address: &str) -> Result<(Instant, HeartbeatResponse), String> {
        let advertised = self.profile.advertised.towards(address).await;
        let advertised = advertised.map_err(|error| format!("cannot find a way to {address}: {error}"))?;
        if let Some(token) = self.link.token() {
            let (sent, answer) = self.send(address, &advertised, &token).await;
            match answer {
                Ok(answer) => return Ok((sent, answer)),
                Err(error) if error.status() == Some(http::StatusCode::UNAUTHORIZED) => self.link.forget_token(&token),
                Err(error) => return Err(error.to_string()),
            }
        }
        let (sent, answer) = self.send(address, &advertised, &self.profile.join_token).await;
        answer.map(|answer| (sent, answer)).map_err(|error| match error.status() {
            Some(http::StatusCode::UNAUTHORIZED) => {
                format!("{address} refuses the join token; set --join-token (TASKMASTER_JOIN_TOKEN) to the coordinators' one")
            }
            _ => error.to_string(),
        })
    }

    /// Sends one heartbeat; also says when, because the lease counts from there.
    async fn send(
        &self,
        address: &str,
        advertised: &str,
        token: &Secret,
    ) -> (Instant, Result<HeartbeatResponse, ClientError>) {
        let request = self.request(advertised);
        let sent = Instant::now();
        (sent, self.client.send_heartbeat(address, &self.profile.worker_id, token.expose(), &request).await)
    }

    fn request(&self, advertised: &str) -> HeartbeatRequest {
        let (counts, held) = {
            let board = self.slots.board();
            (board.counts(), board.held_claims())
        };
        HeartbeatRequest {
            address: advertised.to_owned(),
            slots: self.profile.slots,
            // Whoever pushes counts what is held until its outcome is recorded: with it this is all that may be held.
            room: i64::try_from(counts.room.saturating_sub(counts.ended)).unwrap_or(i64::MAX),
            abilities: self.profile.abilities.clone(),
            labels: self.profile.labels.iter().cloned().collect(),
            push_secret: self.profile.push_secret.expose().to_owned(),
            held,
            draining: counts.draining,
        }
    }

    /// Does what an answer says. The time to the next heartbeat: none when home has moved to another than who was asked, so that it
    /// knows the worker at once.
    fn acknowledged(&self, asked: &str, sent: Instant, answer: &HeartbeatResponse) -> Duration {
        let first = self.link.token().is_none();
        let moved = self.link.acknowledged(answer);
        {
            let mut board = self.slots.board();
            board.stop(&answer.stop, Instant::now());
            if let Some(until) = sent.checked_add(Duration::from_millis(answer.lease_ms)) {
                board.extend_lease(until);
            }
        }
        self.slots.start_due();
        self.slots.reports.notify_one();
        if first {
            tracing::info!(worker_id = self.profile.worker_id, home = answer.home.address, "joined");
        } else if moved {
            tracing::info!(worker_id = self.profile.worker_id, home = answer.home.address, "home has moved");
        }
        if answer.drain && !self.leave.is_requested() {
            tracing::info!(worker_id = self.profile.worker_id, "asked to leave");
            self.leave.request();
        }
        match answer.heartbeat_ms {
            0 => INTERVAL_DEFAULT,
            _ if moved && answer.home.address.trim_end_matches('/') != asked => INTERVAL_MIN,
            told => Duration::from_millis(told).max(INTERVAL_MIN),
        }
    }
}
