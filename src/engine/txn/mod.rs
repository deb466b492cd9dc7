//! Transactions: snapshot isolation over any number of tables, DDL included; first committer wins.

mod again;
mod commit;
mod conflict;
mod diff;
mod load;
mod places;
mod repeated;
mod resolve;
mod root;
mod run;
mod transaction;
mod turns;
mod write;

pub use root::Snapshot;
pub use transaction::{Savepoint, Transaction};
pub use write::{Write, WriteResult};

pub(crate) use again::write;
pub(crate) use commit::{Change, Committer, install};
pub(crate) use places::{
    added_segment, find_row, keys_at, row_ids_at, segment_file, segment_files, segment_id,
};
pub(crate) use root::{DbRoot, Object};
pub(crate) use run::RunWriter;

/// What to do with a row whose primary key exists. In tables without one nothing conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The statement fails and leaves nothing.
    #[default]
    Error,
    /// The row that exists stays; of several new ones the first is kept.
    Ignore,
    /// The new row replaces it; of several new ones the last is kept.
    Replace,
}
