//! Which coordinators there are, which one is home, and the worker's own token.

use std::sync::{Mutex, MutexGuard, PoisonError};

use taskmaster_openapi::coordinator::HeartbeatResponse;
use taskmaster_service::Secret;
use tokio::sync::Notify;

/// Coordinators that are remembered; the contract's figure.
const COORDINATORS_MAX: usize = 100;

/// What the worker knows of its coordinators.
#[derive(Debug)]
pub(crate) struct Link {
    configured: Vec<String>,
    state: Mutex<LinkState>,
    /// The next heartbeat is due at once.
    pub beat_now: Notify,
    /// Whoever waits at this moment: the worker has a new token.
    pub joined: Notify,
}

#[derive(Debug, Default)]
struct LinkState {
    home: Option<String>,
    others: Vec<String>,
    token: Option<Secret>,
}

impl Link {
    pub fn new(configured: Vec<String>) -> Self {
        Self { configured, state: Mutex::default(), beat_now: Notify::new(), joined: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where to turn, in this order: home, the others it named, those of the settings; each once.
    pub fn candidates(&self) -> Vec<String> {
        let state = self.state();
        let mut candidates: Vec<String> = Vec::new();
        for address in state.home.iter().chain(&state.others).chain(&self.configured) {
            if !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        candidates
    }

    /// The worker's own token; none before it has joined.
    pub fn token(&self) -> Option<Secret> {
        self.state().token.clone()
    }

    /// A coordinator did not take the token: the next heartbeat joins again. Keeps a newer token.
    pub fn forget_token(&self, token: &Secret) {
        let mut state = self.state();
        if state.token.as_ref() == Some(token) {
            state.token = None;
        }
    }

    /// Takes over what an answered heartbeat says. Whether home has moved.
    pub fn acknowledged(&self, answer: &HeartbeatResponse) -> bool {
        let mut state = self.state();
        let home = answer.home.address.trim_end_matches('/').to_owned();
        let moved = state.home.as_ref() != Some(&home);
        state.home = Some(home);
        state.others = answer
            .coordinators
            .iter()
            .take(COORDINATORS_MAX)
            .map(|address| address.trim_end_matches('/').to_owned())
            .collect();
        let token = Secret::new(answer.token.clone());
        if state.token.as_ref() != Some(&token) {
            state.token = Some(token);
            self.joined.notify_waiters();
        }
        moved
    }
}
