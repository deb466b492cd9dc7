//! The Arrow Flight SQL service. Builds no plans: what SQL means is asked of [`crate::sql`].

mod action;
mod body;
mod complete;
mod encode;
mod inflow;
mod ingest;
mod ipc;
mod kept;
mod message;
mod metadata;
mod options;
mod parameters;
mod poll;
mod prepared;
pub mod proto;
mod receive;
mod route;
mod service;
mod session;
mod statement;
mod status;
mod ticket;
mod wire_type;

pub use route::FlightServer;
pub use service::{Options, Service};
pub use session::Connection;
pub(crate) use status::new as refusal;
