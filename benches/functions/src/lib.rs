//! The hot pure functions, each by a name. Criterion times them (`benches/functions.rs`), and CI counts their instructions (the
//! program; `.ci/instructions`).

mod contracts;
mod coordinator;
mod gateway;
mod samples;
mod store;

/// What one call works on: tasks, reports, seats, …
pub const ITEMS: usize = 1_000;

/// Does the work on [`ITEMS`] items, and says how many it did: a refusal is quick, and must not pass for the work.
pub type Call = Box<dyn FnMut() -> usize>;

/// A function, with what it works on yet to be made.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    pub name: &'static str,
    pub prepare: fn() -> Call,
}

/// All of them.
pub fn all() -> impl Iterator<Item = Function> {
    let parts = [gateway::FUNCTIONS, store::FUNCTIONS, coordinator::FUNCTIONS, contracts::FUNCTIONS];
    parts.into_iter().flatten().map(|(name, prepare)| Function { name, prepare: *prepare })
}

/// The functions of one crate.
type Part = &'static [(&'static str, fn() -> Call)];
