//! What every request of `/v1` passes before a handler sees it. `server.rs` shows in which order.
//!
//! [`client`] says who asks, [`rate`] how often they may, [`admission`] how many at once, [`deadline`] for how long, [`origin`]
//! and [`cors`] from which web pages, [`key`] and [`keyring`] with which API key, [`scope`] what that one allows. [`headers`]
//! adds what every answer carries, [`coding`] compresses it, [`bodies`] bounds the memory that large bodies take.

pub(crate) mod admission;
pub(crate) mod bodies;
pub(crate) mod client;
pub(crate) mod coding;
pub(crate) mod cors;
pub(crate) mod deadline;
pub(crate) mod headers;
pub(crate) mod key;
pub(crate) mod keyring;
pub(crate) mod origin;
pub(crate) mod rate;
pub(crate) mod scope;
