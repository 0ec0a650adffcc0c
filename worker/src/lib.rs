//! The worker: slots, executors, reports.
