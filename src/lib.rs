//! What the `taskmaster` command is made of.
//!
//! In reading order: [`cli`] (the words of the command line), [`parts`] (each process alone), [`up`] (all of them in this one, on
//! a private [`postgres`]), [`mod@bench`], [`conformance`] (is that a worker?), [`documents`] (what is generated from the
//! contracts), [`postman`], [`problems`], [`health`] (for containers), [`keys`].

pub mod bench;
pub mod cli;
pub mod conformance;
pub mod documents;
pub mod health;
pub mod keys;
pub mod parts;
pub mod postgres;
pub mod postman;
pub mod problems;
pub mod up;
