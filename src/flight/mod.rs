//! The Arrow Flight SQL service. Builds no plans: what SQL means is asked of [`crate::sql`].

mod action;
mod complete;
mod encode;
mod ingest;
mod ipc;
mod kept;
mod metadata;
mod prepared;
pub mod proto;
mod receive;
mod service;
mod session;
mod statement;
mod status;
mod ticket;
mod wire_type;

pub use complete::WatchStreams;
pub use service::{Options, Service};
pub use session::Connection;
