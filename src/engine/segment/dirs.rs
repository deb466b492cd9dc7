//! Directories of tables as recovery and garbage collection see them, and the model as EXPLAIN shows it.

use std::io::ErrorKind;

use super::keys::{KeyIndex, Stop};
use super::{Segment, SegmentStore, blocks};
use crate::engine::error::Result;
use crate::engine::id::TableId;
use crate::engine::key::EncodedKey;

impl Segment {
    /// The position that the model predicts for a key; `None` where the key is not learned.
    pub(crate) fn predict(&self, key: &EncodedKey) -> Result<Option<u64>> {
        self.with_keys(|index| match (index, key) {
            (KeyIndex::U64(keys), EncodedKey::U64(key)) => Ok(Some(keys.predict(*key).pos as u64)),
            (KeyIndex::U128(keys), EncodedKey::U128(key)) => {
                Ok(Some(keys.predict(*key).pos as u64))
            }
            (KeyIndex::Bytes(_), EncodedKey::Bytes(_)) => Ok(None),
            _ => Err(Stop::WrongForm),
        })
    }
}

impl SegmentStore {
    /// Ids of the tables that have a directory.
    pub(crate) fn list_tables(&self) -> Result<Vec<TableId>> {
        let paths = self.vfs.list(&self.dir).map_err(|e| blocks::at_path(e, &self.dir))?;
        let ids = paths.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok());
        Ok(ids.map(TableId).collect())
    }

    /// Removes the directory of a table, if it is there and empty.
    pub(crate) fn remove_table_dir(&self, table: TableId) -> Result<()> {
        let dir = self.table_dir(table);
        match self.vfs.remove_dir(&dir) {
            Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Err(blocks::at_path(e, &dir))
            }
            _ => Ok(()),
        }
    }
}
