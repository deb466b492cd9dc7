//! The learned index: sorted keys in, bounds of positions out. No I/O.
