//! Ids are newtypes, so that one kind cannot be taken for another. None is ever used again.

use std::fmt;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The next id.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

id! {
    /// A table, for its whole life: a rename keeps it, a table made anew under the same name has another.
    TableId(u64);
    /// An immutable data file of a table, unique in the database.
    SegmentId(u64);
    /// The number of a commit: commits are totally ordered by it.
    SeqNo(u64);
    /// A column of a table, for its whole life. 0 is the hidden row id.
    FieldId(u32);
    /// A generation of a table's memtable: a sealed memtable and its successor differ in it.
    Generation(u64);
}
