//! OmenDB: an ordered database with learned indexes that speaks Arrow Flight SQL.

pub mod engine;
#[cfg(feature = "server")]
pub mod sql;
