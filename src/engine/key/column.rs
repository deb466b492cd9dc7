//! Operations on whole columns of keys. Each matches on the form once, outside its loop.

use std::cmp::Ordering;

use arrow::array::{Array, BinaryArray, UInt32Array};

use super::sort;
use super::{EncodedKey, KeyColumn, KeyForm};
use crate::engine::error::{Error, Result};

/// Keys of different forms never meet: a table has one codec.
const SAME_FORM: &str = "keys of one table have one form";

impl KeyColumn {
    /// A column of no keys.
    pub fn empty(form: KeyForm) -> Self {
        match form {
            KeyForm::U64 => Self::U64(Vec::new()),
            KeyForm::U128 => Self::U128(Vec::new()),
            KeyForm::Bytes => {
                Self::Bytes(BinaryArray::from_iter_values(std::iter::empty::<&[u8]>()))
            }
        }
    }

    /// The column of these keys, all of form `form`.
    pub fn from_keys<'a>(
        form: KeyForm,
        keys: impl IntoIterator<Item = &'a EncodedKey>,
    ) -> Result<Self> {
        let wrong = || Error::internal(SAME_FORM);
        let keys = keys.into_iter();
        Ok(match form {
            KeyForm::U64 => Self::U64(
                keys.map(|k| if let EncodedKey::U64(k) = k { Ok(*k) } else { Err(wrong()) })
                    .collect::<Result<_>>()?,
            ),
            KeyForm::U128 => Self::U128(
                keys.map(|k| if let EncodedKey::U128(k) = k { Ok(*k) } else { Err(wrong()) })
                    .collect::<Result<_>>()?,
            ),
            KeyForm::Bytes => {
                let keys: Vec<&[u8]> = keys
                    .map(|k| if let EncodedKey::Bytes(k) = k { Ok(&**k) } else { Err(wrong()) })
                    .collect::<Result<_>>()?;
                Self::Bytes(BinaryArray::from_iter_values(keys))
            }
        })
    }

    /// How the keys are held.
    pub fn form(&self) -> KeyForm {
        match self {
            Self::U64(_) => KeyForm::U64,
            Self::U128(_) => KeyForm::U128,
            Self::Bytes(_) => KeyForm::Bytes,
        }
    }

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

    /// The first key.
    pub fn first(&self) -> Option<EncodedKey> {
        (!self.is_empty()).then(|| self.get(0))
    }

    /// The last key.
    pub fn last(&self) -> Option<EncodedKey> {
        (!self.is_empty()).then(|| self.get(self.len() - 1))
    }

    /// The `len` keys from `offset` on; numbers are copied, bytes are not.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        match self {
            Self::U64(k) => Self::U64(k[offset..offset + len].to_vec()),
            Self::U128(k) => Self::U128(k[offset..offset + len].to_vec()),
            Self::Bytes(k) => Self::Bytes(k.slice(offset, len)),
        }
    }

    /// The keys at `positions`, in that order.
    pub fn take(&self, positions: &[u32]) -> Result<Self> {
        Ok(match self {
            Self::U64(k) => Self::U64(positions.iter().map(|p| k[*p as usize]).collect()),
            Self::U128(k) => Self::U128(positions.iter().map(|p| k[*p as usize]).collect()),
            Self::Bytes(k) => {
                let positions = UInt32Array::from(positions.to_vec());
                let taken = arrow::compute::take(k, &positions, None)?;
                Self::Bytes(BinaryArray::from(taken.to_data()))
            }
        })
    }

    /// All keys of `columns` (at least one, all of one form), one column after the other.
    pub fn concat(columns: &[&Self]) -> Result<Self> {
        let wrong = || Error::internal(SAME_FORM);
        let Some(first) = columns.first() else { return Err(Error::internal("no keys to join")) };
        Ok(match first {
            Self::U64(_) => {
                let mut out = Vec::with_capacity(columns.iter().map(|c| c.len()).sum());
                for column in columns {
                    let Self::U64(keys) = column else { return Err(wrong()) };
                    out.extend_from_slice(keys);
                }
                Self::U64(out)
            }
            Self::U128(_) => {
                let mut out = Vec::with_capacity(columns.iter().map(|c| c.len()).sum());
                for column in columns {
                    let Self::U128(keys) = column else { return Err(wrong()) };
                    out.extend_from_slice(keys);
                }
                Self::U128(out)
            }
            Self::Bytes(_) => {
                let mut arrays: Vec<&dyn Array> = Vec::with_capacity(columns.len());
                for column in columns {
                    let Self::Bytes(keys) = column else { return Err(wrong()) };
                    arrays.push(keys);
                }
                let joined = arrow::compute::concat(&arrays).map_err(|e| {
                    Error::exhausted("the keys to join exceed 2 GiB").with_source(e)
                })?;
                Self::Bytes(BinaryArray::from(joined.to_data()))
            }
        })
    }

    /// Position of the first key `>= key`; the column is sorted.
    pub fn lower_bound(&self, key: &EncodedKey) -> usize {
        self.partition_point(key, |order| order == Ordering::Less)
    }

    /// Position of the first key `> key`; the column is sorted.
    pub fn upper_bound(&self, key: &EncodedKey) -> usize {
        self.partition_point(key, |order| order != Ordering::Greater)
    }

    fn partition_point(&self, key: &EncodedKey, below: impl Fn(Ordering) -> bool) -> usize {
        match (self, key) {
            (Self::U64(keys), EncodedKey::U64(key)) => keys.partition_point(|k| below(k.cmp(key))),
            (Self::U128(keys), EncodedKey::U128(key)) => {
                keys.partition_point(|k| below(k.cmp(key)))
            }
            (Self::Bytes(keys), EncodedKey::Bytes(key)) => {
                let (mut low, mut high) = (0, keys.len());
                while low < high {
                    let middle = low + (high - low) / 2;
                    if below(keys.value(middle).cmp(key)) {
                        low = middle + 1
                    } else {
                        high = middle
                    }
                }
                low
            }
            _ => panic!("{SAME_FORM}"),
        }
    }

    /// Compares the key at `position` with `key`.
    pub fn compare_at(&self, position: usize, key: &EncodedKey) -> Ordering {
        match (self, key) {
            (Self::U64(keys), EncodedKey::U64(key)) => keys[position].cmp(key),
            (Self::U128(keys), EncodedKey::U128(key)) => keys[position].cmp(key),
            (Self::Bytes(keys), EncodedKey::Bytes(key)) => keys.value(position).cmp(key),
            _ => panic!("{SAME_FORM}"),
        }
    }

    /// Whether no key is below the one before.
    pub fn is_sorted(&self) -> bool {
        match self {
            Self::U64(k) => k.is_sorted(),
            Self::U128(k) => k.is_sorted(),
            Self::Bytes(k) => (1..k.len()).all(|i| k.value(i - 1) <= k.value(i)),
        }
    }

    /// Whether every key is above the one before: sorted and without repeats.
    pub fn is_strictly_sorted(&self) -> bool {
        match self {
            Self::U64(k) => k.is_sorted_by(|a, b| a < b),
            Self::U128(k) => k.is_sorted_by(|a, b| a < b),
            Self::Bytes(k) => (1..k.len()).all(|i| k.value(i - 1) < k.value(i)),
        }
    }

    /// Position of the first key that equals the one before; the column is sorted.
    pub fn first_repeat(&self) -> Option<usize> {
        match self {
            Self::U64(k) => k.windows(2).position(|w| w[0] == w[1]).map(|p| p + 1),
            Self::U128(k) => k.windows(2).position(|w| w[0] == w[1]).map(|p| p + 1),
            Self::Bytes(k) => (1..k.len()).find(|i| k.value(i - 1) == k.value(*i)),
        }
    }

    /// For each run of equal keys, the position of its last; the column is sorted. With these, the last
    /// arrival wins.
    pub fn last_of_runs(&self) -> Vec<u32> {
        fn ends<T: PartialEq>(len: usize, get: impl Fn(usize) -> T) -> Vec<u32> {
            let last = (0..len).filter(|i| *i + 1 == len || get(*i) != get(*i + 1));
            last.map(|i| i as u32).collect()
        }
        match self {
            Self::U64(k) => ends(k.len(), |i| k[i]),
            Self::U128(k) => ends(k.len(), |i| k[i]),
            Self::Bytes(k) => ends(k.len(), |i| k.value(i)),
        }
    }

    /// The positions that put the keys in order; equal keys keep theirs.
    pub fn sort_indices(&self) -> Vec<u32> {
        match self {
            Self::U64(k) => sort::indices_u64(k),
            Self::U128(k) => sort::indices_u128(k),
            Self::Bytes(k) => sort::indices_bytes(k),
        }
    }

    /// Bytes of memory that the keys take.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::U64(k) => k.capacity() * size_of::<u64>(),
            Self::U128(k) => k.capacity() * size_of::<u128>(),
            Self::Bytes(k) => k.get_buffer_memory_size(),
        }
    }
}

/// Compares key `i` of `a` with key `j` of `b`; both have the same form.
pub fn compare(a: &KeyColumn, i: usize, b: &KeyColumn, j: usize) -> Ordering {
    match (a, b) {
        (KeyColumn::U64(a), KeyColumn::U64(b)) => a[i].cmp(&b[j]),
        (KeyColumn::U128(a), KeyColumn::U128(b)) => a[i].cmp(&b[j]),
        (KeyColumn::Bytes(a), KeyColumn::Bytes(b)) => a.value(i).cmp(b.value(j)),
        _ => panic!("{SAME_FORM}"),
    }
}

impl KeyColumn {
    /// The largest key.
    pub fn max(&self) -> Option<EncodedKey> {
        match self {
            Self::U64(k) => k.iter().max().copied().map(EncodedKey::U64),
            Self::U128(k) => k.iter().max().copied().map(EncodedKey::U128),
            Self::Bytes(k) => k.iter().flatten().max().map(|k| EncodedKey::Bytes(k.into())),
        }
    }
}

impl From<&EncodedKey> for KeyColumn {
    /// A column of this key alone.
    fn from(key: &EncodedKey) -> Self {
        match key {
            EncodedKey::U64(k) => Self::U64(vec![*k]),
            EncodedKey::U128(k) => Self::U128(vec![*k]),
            EncodedKey::Bytes(k) => Self::Bytes(BinaryArray::from_iter_values([k])),
        }
    }
}
