//! The job that does nothing but be counted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

static HANDLED: AtomicU64 = AtomicU64::new(0);
static LATENCIES_MS: Mutex<Vec<f64>> = Mutex::new(Vec::new());

/// The payload is what `taskmaster bench` sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    command: String,
    /// When it was sent, in microseconds since 1970; only where latency is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent: Option<u64>,
}

impl Job {
    pub fn new() -> Self {
        Self { command: "true".into(), sent: None }
    }

    pub fn sent_now() -> Self {
        Self { sent: Some(now()), ..Self::new() }
    }

    /// All that a worker does with it.
    pub fn handle(&self) {
        if let Some(sent) = self.sent {
            LATENCIES_MS.lock().unwrap().push(now().saturating_sub(sent) as f64 / 1000.0);
        }
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }
}

pub fn handled() -> u64 {
    HANDLED.load(Ordering::Relaxed)
}

pub fn latencies_ms() -> Vec<f64> {
    LATENCIES_MS.lock().unwrap().clone()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}
