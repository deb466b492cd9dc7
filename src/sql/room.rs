//! Room for the rows of RETURNING. Whoever runs a statement may keep its rows until they are fetched; where there is no room for
//! them, that must be known before the statement commits.

use std::fmt::Debug;
use std::sync::Arc;

use super::error::Result;

/// Where rows are kept.
pub trait Room: Debug + Send + Sync {
    /// Takes room for so many bytes; an error where there is not as much.
    fn take(&self, bytes: usize) -> Result<()>;

    /// Gives room back.
    fn give_back(&self, bytes: usize);
}

/// Room that was taken; dropped, it is given back.
#[derive(Debug)]
pub struct Held {
    room: Arc<dyn Room>,
    bytes: usize,
}

impl Held {
    /// None yet.
    pub(crate) fn new(room: Arc<dyn Room>) -> Self {
        Self { room, bytes: 0 }
    }

    /// Takes more.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<()> {
        self.room.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes both one; they are of the same room.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Keeps the room taken: from now on it is for the caller to give it back.
    pub fn keep(mut self) -> usize {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.give_back(self.bytes);
        }
    }
}
