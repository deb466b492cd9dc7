//! The integers that a learned index is built over.

use std::fmt::Debug;
use std::hash::Hash;

mod sealed {
    pub trait Sealed {}
    impl Sealed for u64 {}
    impl Sealed for u128 {}
}

/// An encoded key that the index can model: `u64` or `u128`.
pub trait ModelKey:
    sealed::Sealed + Copy + Ord + Default + Debug + Hash + Send + Sync + 'static
{
    /// Bytes of one key.
    const BYTES: usize;
    /// The largest key.
    const MAX: Self;

    /// The key after this one, or `None` after the last.
    fn successor(self) -> Option<Self>;
    /// The key as 128 bits.
    fn to_u128(self) -> u128;
    /// The low bits of `v`.
    fn from_u128(v: u128) -> Self;
}

macro_rules! model_key {
    ($($t:ty),*) => {$(
        impl ModelKey for $t {
            const BYTES: usize = size_of::<$t>();
            const MAX: Self = <$t>::MAX;

            #[inline]
            fn successor(self) -> Option<Self> {
                self.checked_add(1)
            }
            #[inline]
            fn to_u128(self) -> u128 {
                self as u128
            }
            #[inline]
            fn from_u128(v: u128) -> Self {
                v as $t
            }
        }
    )*};
}
model_key!(u64, u128);
