//! The segments of a table, and which of them can hold a key.

use std::ops::{Bound, Deref, Range};
use std::sync::Arc;

use super::deletes::DeleteMap;
use super::source::{SourceId, SourceState};
use crate::engine::key::{EncodedKey, KeyColumn, KeyRange};
use crate::engine::segment::FilterUse;

/// Segments by their first key. Cheap to clone where nothing but deletes changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segments {
    states: Vec<SourceState>,
    fences: Arc<Fences>,
}

/// First keys, and how far the keys of a segment and of all before it reach: each in an array of its own, so
/// that the search for one key touches a few cache lines, however many segments there are.
#[derive(Debug, Default)]
enum Fences {
    #[default]
    None,
    U64(Ends<u64>),
    U128(Ends<u128>),
    Bytes(Ends<Box<[u8]>>),
}

#[derive(Debug)]
pub(crate) struct Ends<K> {
    firsts: Vec<K>,
    reaches: Vec<K>,
    /// Whether no two segments have keys between the same ends.
    disjoint: bool,
}

/// Keys that are numbers.
pub(crate) trait Number: Ord + Copy {
    /// A column of such keys.
    fn column(keys: Vec<Self>) -> KeyColumn;

    /// The key, if it is such a one.
    fn of(key: EncodedKey) -> Option<Self>;

    /// The ends of segments with such keys.
    fn ends(segments: &Segments) -> Option<&Ends<Self>>;
}

macro_rules! number {
    ($type:ty, $variant:ident) => {
        impl Number for $type {
            fn column(keys: Vec<Self>) -> KeyColumn {
                KeyColumn::$variant(keys)
            }

            fn of(key: EncodedKey) -> Option<Self> {
                match key {
                    EncodedKey::$variant(key) => Some(key),
                    _ => None,
                }
            }

            fn ends(segments: &Segments) -> Option<&Ends<Self>> {
                match &*segments.fences {
                    Fences::$variant(ends) => Some(ends),
                    _ => None,
                }
            }
        }
    };
}

number!(u64, U64);
number!(u128, U128);

impl<K: Ord + Clone> Ends<K> {
    fn new(ends: Vec<(K, K)>) -> Self {
        let (mut firsts, mut reaches) =
            (Vec::with_capacity(ends.len()), Vec::with_capacity(ends.len()));
        let mut disjoint = true;
        for (first, last) in ends {
            disjoint &= reaches.last().is_none_or(|before| *before < first);
            let reach = match reaches.last() {
                Some(before) if *before > last => K::clone(before),
                _ => last,
            };
            firsts.push(first);
            reaches.push(reach);
        }
        Self { firsts, reaches, disjoint }
    }

    /// The only segment that can hold a key; `None` where there is none. Where segments are disjoint.
    #[inline]
    pub(super) fn only(&self, key: &K) -> Option<usize> {
        let at = self.firsts.partition_point(|first| first <= key).checked_sub(1)?;
        (self.reaches[at] >= *key).then_some(at)
    }

    pub(super) fn are_disjoint(&self) -> bool {
        self.disjoint
    }

    /// The segments that begin at `high` or before, without those before the first that reaches `low`.
    #[inline]
    fn near<Q: Ord + ?Sized>(&self, low: Option<&Q>, high: Option<&Q>) -> Range<usize>
    where
        K: std::borrow::Borrow<Q>,
    {
        let from = low.map_or(0, |low| self.reaches.partition_point(|r| r.borrow() < low));
        let to = high
            .map_or(self.firsts.len(), |high| self.firsts.partition_point(|f| f.borrow() <= high));
        from.min(to)..to
    }
}

impl Fences {
    fn new(states: &[SourceState]) -> Self {
        let mut fences = (Vec::new(), Vec::new(), Vec::new());
        for state in states {
            match (state.source.min_key(), state.source.max_key()) {
                (EncodedKey::U64(a), EncodedKey::U64(b)) => fences.0.push((a, b)),
                (EncodedKey::U128(a), EncodedKey::U128(b)) => fences.1.push((a, b)),
                (EncodedKey::Bytes(a), EncodedKey::Bytes(b)) => fences.2.push((a, b)),
                _ => {}
            }
        }
        // Keys of one table have one form.
        match (!fences.0.is_empty(), !fences.1.is_empty(), !fences.2.is_empty()) {
            (true, false, false) => Self::U64(Ends::new(fences.0)),
            (false, true, false) => Self::U128(Ends::new(fences.1)),
            (false, false, true) => Self::Bytes(Ends::new(fences.2)),
            _ => Self::None,
        }
    }
}

impl Segments {
    /// Which segments can hold keys between two, these included: a stretch of them, with others in it where
    /// segments overlap.
    #[inline]
    fn between(&self, low: Option<&EncodedKey>, high: Option<&EncodedKey>) -> Range<usize> {
        use EncodedKey as K;
        let all = 0..self.states.len();
        match (&*self.fences, low, high) {
            (_, None, None) | (Fences::None, ..) => all,
            (Fences::U64(ends), Some(K::U64(a)), Some(K::U64(b))) => ends.near(Some(a), Some(b)),
            (Fences::U64(ends), Some(K::U64(a)), None) => ends.near(Some(a), None),
            (Fences::U64(ends), None, Some(K::U64(b))) => ends.near(None, Some(b)),
            (Fences::U128(ends), Some(K::U128(a)), Some(K::U128(b))) => ends.near(Some(a), Some(b)),
            (Fences::U128(ends), Some(K::U128(a)), None) => ends.near(Some(a), None),
            (Fences::U128(ends), None, Some(K::U128(b))) => ends.near(None, Some(b)),
            (Fences::Bytes(ends), Some(K::Bytes(a)), Some(K::Bytes(b))) => {
                ends.near(Some(&**a), Some(&**b))
            }
            (Fences::Bytes(ends), Some(K::Bytes(a)), None) => ends.near(Some(&**a), None),
            (Fences::Bytes(ends), None, Some(K::Bytes(b))) => ends.near(None, Some(&**b)),
            // A key of another form: the segments themselves say so.
            _ => all,
        }
    }

    /// Which segments can hold a key.
    #[inline]
    pub(crate) fn at(&self, key: &EncodedKey) -> Range<usize> {
        self.between(Some(key), Some(key))
    }

    /// How filters are used to look for keys that are likely there: where segments overlap, most of those that
    /// can hold a key do not.
    pub(crate) fn filter_use(&self) -> FilterUse {
        let disjoint = match &*self.fences {
            Fences::None => true,
            Fences::U64(ends) => ends.disjoint,
            Fences::U128(ends) => ends.disjoint,
            Fences::Bytes(ends) => ends.disjoint,
        };
        if disjoint { FilterUse::InMemory } else { FilterUse::Read }
    }

    /// Which segments can hold keys of a range.
    pub(crate) fn within(&self, range: &KeyRange) -> Range<usize> {
        fn key(bound: &Bound<EncodedKey>) -> Option<&EncodedKey> {
            match bound {
                Bound::Included(key) | Bound::Excluded(key) => Some(key),
                Bound::Unbounded => None,
            }
        }
        self.between(key(&range.lower), key(&range.upper))
    }

    /// Which rows of a segment are deleted, to change it.
    pub(crate) fn deleted_mut(&mut self, id: SourceId) -> Option<&mut DeleteMap> {
        self.states.iter_mut().find(|s| s.source.id() == id).map(|s| &mut s.deleted)
    }

    /// Puts segments among those that are there.
    pub(crate) fn add(&mut self, added: impl IntoIterator<Item = SourceState>) {
        self.states.extend(added);
        self.states.sort_by_cached_key(|s| (s.source.min_key(), s.source.id()));
        self.fences = Arc::new(Fences::new(&self.states));
    }

    /// Takes segments away; returns them.
    pub(crate) fn remove(&mut self, ids: &[SourceId]) -> Vec<SourceState> {
        let (gone, kept) = std::mem::take(&mut self.states)
            .into_iter()
            .partition::<Vec<_>, _>(|s| ids.contains(&s.source.id()));
        self.states = kept;
        self.fences = Arc::new(Fences::new(&self.states));
        gone
    }
}

impl Deref for Segments {
    type Target = [SourceState];

    fn deref(&self) -> &[SourceState] {
        &self.states
    }
}
