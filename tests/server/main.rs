//! The server through real connections: every call of Flight and Flight SQL, hostile messages, and streams that break.

mod admission;
mod changes;
mod control;
mod errors;
mod fixture;
mod hostile;
mod ingest;
mod isolation;
mod java;
mod metadata;
mod resets;
mod statements;
mod streams;
mod transactions;
