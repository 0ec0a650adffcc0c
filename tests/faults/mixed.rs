//! All faults at once, under load.
