//! What the `taskmaster` command is made of.

pub mod postgres;
