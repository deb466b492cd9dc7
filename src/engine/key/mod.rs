//! Keys: what a table is ordered by, in an encoding whose order is the order of the values.
//!
//! A key of one column of at most 8 bytes is a `u64`, one of several that fit 16 bytes (or a
//! Decimal128) a `u128`; both are modelled by the learned index. Everything wider, and all text and
//! binary, is row-encoded bytes ([`arrow_row`]).

use std::cmp::Ordering;
use std::ops::Bound;

use arrow::array::{Array, ArrayRef, BinaryArray};
use arrow::datatypes::DataType;

use super::error::Result;

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

impl KeyColumn {
    /// Number of keys.
    pub fn len(&self) -> usize {
        match self {
            Self::U64(k) => k.len(),
            Self::U128(k) => k.len(),
            Self::Bytes(k) => k.len(),
        }
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key at `position`.
    pub fn get(&self, position: usize) -> EncodedKey {
        match self {
            Self::U64(k) => EncodedKey::U64(k[position]),
            Self::U128(k) => EncodedKey::U128(k[position]),
            Self::Bytes(k) => EncodedKey::Bytes(k.value(position).into()),
        }
    }
}

/// A range of encoded keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// Where it begins.
    pub lower: Bound<EncodedKey>,
    /// Where it ends.
    pub upper: Bound<EncodedKey>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        Self { lower: Bound::Unbounded, upper: Bound::Unbounded }
    }

    /// Just `key`.
    pub fn point(key: EncodedKey) -> Self {
        Self { lower: Bound::Included(key.clone()), upper: Bound::Included(key) }
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &EncodedKey) -> bool {
        let above = match &self.lower {
            Bound::Included(b) => key >= b,
            Bound::Excluded(b) => key > b,
            Bound::Unbounded => true,
        };
        above
            && match &self.upper {
                Bound::Included(b) => key <= b,
                Bound::Excluded(b) => key < b,
                Bound::Unbounded => true,
            }
    }

    /// The keys in both ranges.
    #[must_use]
    pub fn intersect(&self, _other: &Self) -> Self {
        todo!()
    }

    /// Whether it is certain that no key lies inside.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
}

/// Checks that columns of `data_type` can be keys.
pub fn check_key_type(_data_type: &DataType) -> Result<()> {
    todo!()
}

/// Encodes and decodes the keys of one table.
#[derive(Debug, Clone)]
pub struct KeyCodec {
    types: Vec<DataType>,
    form: KeyForm,
}

impl KeyCodec {
    /// The codec for keys of columns of these types.
    pub fn new(_types: &[DataType]) -> Result<Self> {
        todo!()
    }

    /// How keys are held.
    pub fn form(&self) -> KeyForm {
        self.form
    }

    /// Types of the key columns.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Encodes the key of every row. `columns` have the codec's types. A NULL or NaN is an error that
    /// names the row and the column by position in the key.
    pub fn encode(&self, _columns: &[ArrayRef]) -> Result<KeyColumn> {
        todo!()
    }

    /// The key columns that `keys` were encoded from (with -0 as +0).
    pub fn decode(&self, _keys: &KeyColumn) -> Result<Vec<ArrayRef>> {
        todo!()
    }

    /// The keys whose first columns equal `prefix` (arrays of one row; may be none) and whose next
    /// column, if there is one, lies between `lower` and `upper` (arrays of one row).
    pub fn range(
        &self,
        _prefix: &[ArrayRef],
        _lower: Bound<ArrayRef>,
        _upper: Bound<ArrayRef>,
    ) -> Result<KeyRange> {
        todo!()
    }
}

/// Compares key `i` of `a` with key `j` of `b`; both have the same form.
pub fn compare(_a: &KeyColumn, _i: usize, _b: &KeyColumn, _j: usize) -> Ordering {
    todo!()
}
