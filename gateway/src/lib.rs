//! The public edge and the scheduler's API.
