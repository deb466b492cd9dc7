//! Keys: what a table is ordered by, in an encoding whose order is the order of the values.
//!
//! A key of one column of at most 8 bytes is a `u64`, one of several that fit 16 bytes (or a
//! Decimal128) a `u128`; both are modelled by the learned index. Everything wider, and all text and
//! binary, is row-encoded bytes ([`arrow_row`]).
//!
//! | value | encoding (big-endian where it becomes bytes) |
//! |---|---|
//! | unsigned, Boolean | itself |
//! | signed, dates, times, timestamps, decimals | sign bit flipped |
//! | floats | negative: all bits inverted; else sign bit flipped; -0 as +0 |
//!
//! Floats sort by IEEE total order, so that a NaN used as a bound lies beyond the infinities; as a key
//! it is refused, and so is NULL.

mod bits;
mod codec;
mod column;
mod range;
mod sort;
#[cfg(test)]
mod tests;

use arrow::array::BinaryArray;

pub use codec::{KeyCodec, check_key_type};
pub use column::compare;
pub use range::KeyRange;

/// How the keys of a table are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyForm {
    /// One learned column of at most 8 bytes.
    U64,
    /// Learned columns of 16 bytes together at most.
    U128,
    /// Row-encoded bytes.
    Bytes,
}

/// One encoded key. Keys of one table all have the same form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EncodedKey {
    /// See [`KeyForm::U64`].
    U64(u64),
    /// See [`KeyForm::U128`].
    U128(u128),
    /// See [`KeyForm::Bytes`].
    Bytes(Box<[u8]>),
}

impl EncodedKey {
    /// How the key is held.
    pub fn form(&self) -> KeyForm {
        match self {
            Self::U64(_) => KeyForm::U64,
            Self::U128(_) => KeyForm::U128,
            Self::Bytes(_) => KeyForm::Bytes,
        }
    }
}

/// The encoded keys of some rows.
#[derive(Debug, Clone)]
pub enum KeyColumn {
    /// See [`KeyForm::U64`].
    U64(Vec<u64>),
    /// See [`KeyForm::U128`].
    U128(Vec<u128>),
    /// See [`KeyForm::Bytes`].
    Bytes(BinaryArray),
}
