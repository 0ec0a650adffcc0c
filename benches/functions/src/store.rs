//! The rules by which a failed attempt goes on.

use std::hint::black_box;
use std::time::Duration;

use taskmaster_openapi::task::RetryPolicy;
use taskmaster_store::rules::{self, Happening, Standing};

use crate::{Call, ITEMS, Part};

pub(crate) const FUNCTIONS: Part = &[("store/settle", settle), ("store/back_off", back_off)];

fn policy(i: usize) -> RetryPolicy {
    let listed = i.is_multiple_of(3).then(|| vec![1.0, 10.0, 60.0, 600.0]);
    RetryPolicy { delays_seconds: listed, ..RetryPolicy::default() }
}

/// In 0..1, as the jitter wants it.
fn random(i: usize) -> f64 {
    i as f64 / ITEMS as f64
}

fn settle() -> Call {
    let standing = |i| Standing {
        started: i % 2 == 0,
        attempt: (i % 4) as i16,
        max_attempts: 5,
        lost_workers: (i % 3) as i16,
        cancel_requested: i % 50 == 0,
        retry: policy(i),
    };
    let happenings = [
        Happening::Failed { permanent: false, retry_after: None },
        Happening::Failed { permanent: false, retry_after: Some(Duration::from_secs(90)) },
        Happening::Failed { permanent: true, retry_after: None },
        Happening::Stopped,
        Happening::HandedBack,
        Happening::WorkerLost,
    ];
    let standings: Vec<Standing> = (0..ITEMS).map(standing).collect();
    Box::new(move || {
        for (i, standing) in standings.iter().enumerate() {
            black_box(rules::settle(black_box(standing), happenings[i % happenings.len()], random(i)));
        }
        ITEMS
    })
}

fn back_off() -> Call {
    let policies: Vec<RetryPolicy> = (0..ITEMS).map(policy).collect();
    Box::new(move || {
        for (i, policy) in policies.iter().enumerate() {
            black_box(rules::delay(black_box(policy), (i % 20) as i16 + 1, random(i)));
        }
        ITEMS
    })
}
