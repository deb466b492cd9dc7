//! The integers that a learned index is built over, with the arithmetic that its model needs.

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
    /// Bits of one key.
    const BITS: u32;
    /// Bytes of one key.
    const BYTES: usize = Self::BITS as usize / 8;
    /// The largest key.
    const MAX: Self;

    /// The key after this one, or `None` after the last.
    fn successor(self) -> Option<Self>;
    /// The key as 128 bits.
    fn to_u128(self) -> u128;
    /// The low bits of `v`.
    fn from_u128(v: u128) -> Self;
    /// `v` as a key.
    fn from_u64(v: u64) -> Self;
    /// The low 64 bits.
    fn low(self) -> u64;
    /// The key, or the largest 64-bit number.
    fn clamp64(self) -> u64;
    /// The nearest float.
    fn to_f64(self) -> f64;
    /// Bits up to the highest one that is set.
    fn bit_len(self) -> u32;
    /// `self + o`, modulo the range of keys.
    fn add(self, o: Self) -> Self;
    /// `self - o`, modulo the range of keys.
    fn sub(self, o: Self) -> Self;
    /// `self + o`, or the largest key.
    fn saturating_add(self, o: Self) -> Self;
    /// `self - o`, or 0.
    fn saturating_sub(self, o: Self) -> Self;
    /// `self << n`; `n` is taken modulo the bits of a key.
    fn shl(self, n: u32) -> Self;
    /// `self >> n`; `n` is taken modulo the bits of a key.
    fn shr(self, n: u32) -> Self;
    /// The `width` lowest bits set.
    fn mask(width: u32) -> Self;
}

macro_rules! model_key {
    ($($t:ty),*) => {$(
        impl ModelKey for $t {
            const BITS: u32 = <$t>::BITS;
            const MAX: Self = <$t>::MAX;

            #[inline(always)]
            fn successor(self) -> Option<Self> {
                self.checked_add(1)
            }
            #[inline(always)]
            fn to_u128(self) -> u128 {
                self as u128
            }
            #[inline(always)]
            fn from_u128(v: u128) -> Self {
                v as $t
            }
            #[inline(always)]
            fn from_u64(v: u64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn low(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn clamp64(self) -> u64 {
                self.min(u64::MAX as $t) as u64
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn bit_len(self) -> u32 {
                <$t>::BITS - self.leading_zeros()
            }
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                self.wrapping_add(o)
            }
            #[inline(always)]
            fn sub(self, o: Self) -> Self {
                self.wrapping_sub(o)
            }
            #[inline(always)]
            fn saturating_add(self, o: Self) -> Self {
                <$t>::saturating_add(self, o)
            }
            #[inline(always)]
            fn saturating_sub(self, o: Self) -> Self {
                <$t>::saturating_sub(self, o)
            }
            #[inline(always)]
            fn shl(self, n: u32) -> Self {
                self.wrapping_shl(n)
            }
            #[inline(always)]
            fn shr(self, n: u32) -> Self {
                self.wrapping_shr(n)
            }
            #[inline(always)]
            fn mask(width: u32) -> Self {
                // In two shifts, because one by all bits of the type is not defined.
                let half = width / 2;
                !(<$t>::MAX << half << (width - half))
            }
        }
    )*};
}
model_key!(u64, u128);
