//! The storage engine: tables in key order with learned indexes, durable through a write-ahead log.
//!
//! Synchronous, and usable alone: nothing here names SQL, gRPC or a command line.

mod cache;
mod error;
pub mod fs;
mod id;
pub mod index;
mod key;
mod manifest;
mod options;
mod schema;
mod segment;
mod wal;

pub use error::{Error, ErrorKind, Result};
pub use id::{FieldId, Generation, SegmentId, SeqNo, TableId};
pub use key::{EncodedKey, KeyCodec, KeyColumn, KeyForm, KeyRange};
pub use options::Options;
pub use schema::{Column, DEFAULT_SCHEMA, KeyKind, KeySpec, ROW_ID_COLUMN, TableMeta, TableName};
