//! Order-preserving maps between native values and unsigned integers.

/// A native type whose values map to unsigned integers of the same width, in order.
pub(super) trait OrderedBits: Copy {
    /// Width in bits.
    const BITS: u32;
    /// The value's place in the order.
    fn encode(self) -> u128;
    /// The value at a place in the order.
    fn decode(bits: u128) -> Self;
    /// Whether the value is not a number.
    fn is_nan(self) -> bool {
        false
    }
}

macro_rules! ordered_integers {
    ($($signed:ty, $unsigned:ty;)*) => {$(
        impl OrderedBits for $unsigned {
            const BITS: u32 = <$unsigned>::BITS;
            #[inline]
            fn encode(self) -> u128 {
                self as u128
            }
            #[inline]
            fn decode(bits: u128) -> Self {
                bits as $unsigned
            }
        }

        impl OrderedBits for $signed {
            const BITS: u32 = <$unsigned>::BITS;
            #[inline]
            fn encode(self) -> u128 {
                (self as $unsigned ^ (1 << (Self::BITS - 1))) as u128
            }
            #[inline]
            fn decode(bits: u128) -> Self {
                (bits as $unsigned ^ (1 << (Self::BITS - 1))) as $signed
            }
        }
    )*};
}

ordered_integers! {
    i8, u8;
    i16, u16;
    i32, u32;
    i64, u64;
    i128, u128;
}

macro_rules! ordered_floats {
    ($($float:ty, $unsigned:ty;)*) => {$(
        impl OrderedBits for $float {
            const BITS: u32 = <$unsigned>::BITS;
            #[inline]
            fn encode(self) -> u128 {
                const SIGN: $unsigned = 1 << (<$unsigned>::BITS - 1);
                let bits = self.to_bits();
                // -0 becomes +0. A set sign bit inverts the rest, so that -2 sorts below -1.
                let bits = if bits == SIGN { 0 } else { bits };
                let negative = (0 as $unsigned).wrapping_sub(bits >> (<$unsigned>::BITS - 1));
                (bits ^ (negative | SIGN)) as u128
            }
            #[inline]
            fn decode(bits: u128) -> Self {
                const SIGN: $unsigned = 1 << (<$unsigned>::BITS - 1);
                let bits = bits as $unsigned;
                <$float>::from_bits(if bits & SIGN != 0 { bits ^ SIGN } else { !bits })
            }
            #[inline]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
        }
    )*};
}

ordered_floats! {
    f32, u32;
    f64, u64;
}
