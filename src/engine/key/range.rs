//! [`KeyRange`]: a range of encoded keys.

use std::cmp::Ordering;
use std::ops::Bound;

use super::{EncodedKey, KeyForm};

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

    /// No key.
    pub fn none(form: KeyForm) -> Self {
        let lowest = match form {
            KeyForm::U64 => EncodedKey::U64(0),
            KeyForm::U128 => EncodedKey::U128(0),
            KeyForm::Bytes => EncodedKey::Bytes(Box::default()),
        };
        Self { lower: Bound::Included(lowest.clone()), upper: Bound::Excluded(lowest) }
    }

    /// Just `key`.
    pub fn point(key: EncodedKey) -> Self {
        Self { lower: Bound::Included(key.clone()), upper: Bound::Included(key) }
    }

    /// The one key that the range is of, if it is written so.
    pub fn as_point(&self) -> Option<&EncodedKey> {
        match (&self.lower, &self.upper) {
            (Bound::Included(a), Bound::Included(b)) if a == b => Some(a),
            _ => None,
        }
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
    pub fn intersect(&self, other: &Self) -> Self {
        Self {
            lower: tighter(&self.lower, &other.lower, Ordering::Greater),
            upper: tighter(&self.upper, &other.upper, Ordering::Less),
        }
    }

    /// Whether it is certain that no key lies inside.
    pub fn is_empty(&self) -> bool {
        match (&self.lower, &self.upper) {
            (Bound::Included(a), Bound::Included(b)) => a > b,
            (Bound::Included(a), Bound::Excluded(b)) | (Bound::Excluded(a), Bound::Included(b)) => {
                a >= b
            }
            (Bound::Excluded(a), Bound::Excluded(b)) => {
                a >= b || a.successor().is_none_or(|next| &next >= b)
            }
            (Bound::Excluded(a), Bound::Unbounded) => a.successor().is_none(),
            (Bound::Unbounded, Bound::Excluded(b)) => is_lowest(b),
            _ => false,
        }
    }
}

/// Of two bounds on one side, the one that lets fewer keys in; `wins` is how it compares.
fn tighter(a: &Bound<EncodedKey>, b: &Bound<EncodedKey>, wins: Ordering) -> Bound<EncodedKey> {
    let (Bound::Included(x) | Bound::Excluded(x)) = a else { return b.clone() };
    let (Bound::Included(y) | Bound::Excluded(y)) = b else { return a.clone() };
    match x.cmp(y) {
        Ordering::Equal if matches!(a, Bound::Excluded(_)) => a.clone(),
        Ordering::Equal => b.clone(),
        order if order == wins => a.clone(),
        _ => b.clone(),
    }
}

impl EncodedKey {
    /// The next key there can be; `None` where there is none.
    pub(crate) fn successor(&self) -> Option<Self> {
        match self {
            Self::U64(k) => k.checked_add(1).map(Self::U64),
            Self::U128(k) => k.checked_add(1).map(Self::U128),
            Self::Bytes(k) => {
                let mut next = k.to_vec();
                next.push(0);
                Some(Self::Bytes(next.into()))
            }
        }
    }
}

fn is_lowest(key: &EncodedKey) -> bool {
    match key {
        EncodedKey::U64(k) => *k == 0,
        EncodedKey::U128(k) => *k == 0,
        EncodedKey::Bytes(k) => k.is_empty(),
    }
}

/// The lowest bytes above all that begin with `prefix`; `None` where there are none.
pub(super) fn prefix_successor(mut prefix: Vec<u8>) -> Option<EncodedKey> {
    while let Some(last) = prefix.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(EncodedKey::Bytes(prefix.into()));
        }
        prefix.pop();
    }
    None
}
