//! OmenDB: an ordered database with learned indexes that speaks Arrow Flight SQL.

#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
pub mod engine;
#[cfg(feature = "server")]
pub mod flight;
#[cfg(feature = "server")]
mod machine;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod sql;

/// The page's snippets in Rust are compiled by the documentation tests.
#[cfg(all(doctest, feature = "server"))]
#[doc = include_str!("../docs/clients.md")]
mod clients_page {}
