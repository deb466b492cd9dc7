//! [`KeyCodec`]: key columns to encoded keys and back.

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::*;
use arrow_row::{RowConverter, SortField};

use super::bits::OrderedBits;
use super::range::{KeyRange, prefix_successor};
use super::{EncodedKey, KeyColumn, KeyForm};
use crate::engine::error::{Error, Result};

/// Runs `$body` with `$t` as the Arrow type of a learned, primitive `$data_type`, else `$otherwise`.
macro_rules! with_learned_type {
    ($data_type:expr, $t:ident => $body:expr, $otherwise:expr) => {{
        macro_rules! run {
            ($arrow:ty) => {{
                type $t = $arrow;
                $body
            }};
        }
        match $data_type {
            DataType::Int8 => run!(Int8Type),
            DataType::Int16 => run!(Int16Type),
            DataType::Int32 => run!(Int32Type),
            DataType::Int64 => run!(Int64Type),
            DataType::UInt8 => run!(UInt8Type),
            DataType::UInt16 => run!(UInt16Type),
            DataType::UInt32 => run!(UInt32Type),
            DataType::UInt64 => run!(UInt64Type),
            DataType::Float32 => run!(Float32Type),
            DataType::Float64 => run!(Float64Type),
            DataType::Date32 => run!(Date32Type),
            DataType::Date64 => run!(Date64Type),
            DataType::Time32(TimeUnit::Second) => run!(Time32SecondType),
            DataType::Time32(TimeUnit::Millisecond) => run!(Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => run!(Time64MicrosecondType),
            DataType::Time64(TimeUnit::Nanosecond) => run!(Time64NanosecondType),
            DataType::Timestamp(TimeUnit::Second, _) => run!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => run!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => run!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => run!(TimestampNanosecondType),
            DataType::Duration(TimeUnit::Second) => run!(DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => run!(DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => run!(DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => run!(DurationNanosecondType),
            DataType::Decimal32(_, _) => run!(Decimal32Type),
            DataType::Decimal64(_, _) => run!(Decimal64Type),
            DataType::Decimal128(_, _) => run!(Decimal128Type),
            _ => $otherwise,
        }
    }};
}

/// Bits of the encoding of a learned type; `None` for a type that is not learned.
fn learned_bits(data_type: &DataType) -> Option<u32> {
    fn bits<T: ArrowPrimitiveType<Native: OrderedBits>>() -> Option<u32> {
        Some(T::Native::BITS)
    }
    if data_type == &DataType::Boolean {
        return Some(8);
    }
    with_learned_type!(data_type, T => bits::<T>(), None)
}

/// Checks that columns of `data_type` can be keys.
pub fn check_key_type(data_type: &DataType) -> Result<()> {
    use DataType::*;
    let row_encoded = matches!(
        data_type,
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView | FixedSizeBinary(_)
    );
    if row_encoded || learned_bits(data_type).is_some() {
        return Ok(());
    }
    Err(Error::new(
        crate::engine::error::ErrorKind::Unsupported,
        format!(
            "type {data_type} cannot be a key; keys are integers, floats, booleans, dates, times, \
             timestamps, durations, decimals of at most 128 bits, text or binary"
        ),
    ))
}

/// Encodes and decodes the keys of one table.
#[derive(Debug, Clone)]
pub struct KeyCodec {
    types: Vec<DataType>,
    form: KeyForm,
    /// Of the row encoding; `None` for learned forms.
    converter: Option<Arc<RowConverter>>,
}

impl KeyCodec {
    /// The codec for keys of columns of these types.
    pub fn new(types: &[DataType]) -> Result<Self> {
        if types.is_empty() {
            return Err(Error::internal("a key needs at least one column"));
        }
        for data_type in types {
            check_key_type(data_type)?;
        }
        let bits: Option<u32> = types.iter().map(learned_bits).sum();
        let form = match bits {
            Some(bits) if types.len() == 1 && bits <= 64 => KeyForm::U64,
            Some(bits) if bits <= 128 => KeyForm::U128,
            _ => KeyForm::Bytes,
        };
        let converter = match form {
            KeyForm::Bytes => Some(Arc::new(row_converter(types)?)),
            _ => None,
        };
        Ok(Self { types: types.to_vec(), form, converter })
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
    /// names the row (from 0) and the column by its position in the key (from 1).
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<KeyColumn> {
        if columns.len() != self.types.len() {
            return Err(Error::internal(format!(
                "a key of {} columns was given {}",
                self.types.len(),
                columns.len()
            )));
        }
        for (i, column) in columns.iter().enumerate() {
            self.check_type(i, column)?;
            check_values(i, column)?;
        }
        match self.form {
            KeyForm::U64 => Ok(KeyColumn::U64(encode_u64(&columns[0])?)),
            KeyForm::U128 => Ok(KeyColumn::U128(encode_u128(columns)?)),
            KeyForm::Bytes => {
                let rows = self.converter()?.convert_columns(&normalized(columns)?)?;
                let keys = rows.try_into_binary().map_err(|e| {
                    Error::invalid("the keys of one batch exceed 2 GiB; send smaller batches")
                        .with_source(e)
                })?;
                Ok(KeyColumn::Bytes(keys))
            }
        }
    }

    /// [`KeyCodec::encode`] of one key: each column has one row.
    pub fn encode_one(&self, columns: &[ArrayRef]) -> Result<EncodedKey> {
        if let Some(column) = columns.iter().find(|column| column.len() != 1) {
            return Err(Error::invalid(format!(
                "one key was asked for and {} were given",
                column.len()
            )));
        }
        Ok(self.encode(columns)?.get(0))
    }

    /// The key columns that `keys` were encoded from (with -0 as +0).
    pub fn decode(&self, keys: &KeyColumn) -> Result<Vec<ArrayRef>> {
        match (self.form, keys) {
            (KeyForm::U64, KeyColumn::U64(keys)) => {
                Ok(vec![decode_with(&self.types[0], keys.len(), |i| u128::from(keys[i]))?])
            }
            (KeyForm::U128, KeyColumn::U128(keys)) => {
                let mut shift = self.learned_width();
                let mut columns = Vec::with_capacity(self.types.len());
                for data_type in &self.types {
                    shift -= learned_bits(data_type).unwrap_or(0);
                    columns.push(decode_with(data_type, keys.len(), |i| keys[i] >> shift)?);
                }
                Ok(columns)
            }
            (KeyForm::Bytes, KeyColumn::Bytes(keys)) => {
                let converter = self.converter()?;
                let parser = converter.parser();
                Ok(converter.convert_rows(keys.iter().flatten().map(|key| parser.parse(key)))?)
            }
            _ => Err(Error::internal("keys of another form than their codec's")),
        }
    }

    /// The keys whose first columns equal `prefix` (arrays of one row; may be none) and whose next
    /// column, if there is one, lies between `lower` and `upper` (arrays of one row). A NULL anywhere
    /// makes the range empty, as a comparison with NULL is never true; NaN lies beyond infinity.
    pub fn range(
        &self,
        prefix: &[ArrayRef],
        lower: Bound<ArrayRef>,
        upper: Bound<ArrayRef>,
    ) -> Result<KeyRange> {
        let bounded = !matches!((&lower, &upper), (Bound::Unbounded, Bound::Unbounded));
        if prefix.len() + usize::from(bounded) > self.types.len() {
            return Err(Error::internal("a key range names more columns than the key has"));
        }
        let values = prefix.iter().chain(value_of(&lower)).chain(value_of(&upper));
        for value in values.clone() {
            if value.len() != 1 {
                return Err(Error::internal("a bound of a key range is an array of one row"));
            }
        }
        for (i, value) in prefix.iter().enumerate() {
            self.check_type(i, value)?;
        }
        for value in value_of(&lower).into_iter().chain(value_of(&upper)) {
            self.check_type(prefix.len(), value)?;
        }
        if values.into_iter().any(|v| v.is_null(0)) {
            return Ok(KeyRange::none(self.form));
        }
        let low = self.lower_edge(prefix, &lower)?;
        let high = self.upper_edge(prefix, &upper)?;
        Ok(KeyRange { lower: low, upper: high })
    }

    fn lower_edge(
        &self,
        prefix: &[ArrayRef],
        lower: &Bound<ArrayRef>,
    ) -> Result<Bound<EncodedKey>> {
        let (value, after) = match lower {
            Bound::Unbounded if prefix.is_empty() => return Ok(Bound::Unbounded),
            Bound::Unbounded => (None, false),
            Bound::Included(v) => (Some(v), false),
            Bound::Excluded(v) => (Some(v), true),
        };
        let (first, last) = self.span(prefix, value)?;
        Ok(if after { Edge::after(last) } else { Bound::Included(first) })
    }

    fn upper_edge(
        &self,
        prefix: &[ArrayRef],
        upper: &Bound<ArrayRef>,
    ) -> Result<Bound<EncodedKey>> {
        let (value, before) = match upper {
            Bound::Unbounded if prefix.is_empty() => return Ok(Bound::Unbounded),
            Bound::Unbounded => (None, false),
            Bound::Included(v) => (Some(v), false),
            Bound::Excluded(v) => (Some(v), true),
        };
        let (first, last) = self.span(prefix, value)?;
        Ok(if before { Bound::Excluded(first) } else { last.upper() })
    }

    /// First and last place of the keys that begin with `prefix` and then `value`.
    fn span(&self, prefix: &[ArrayRef], value: Option<&ArrayRef>) -> Result<(EncodedKey, Edge)> {
        let columns: Vec<ArrayRef> = prefix.iter().chain(value).cloned().collect();
        let whole = columns.len() == self.types.len();
        match self.form {
            KeyForm::U64 => {
                let key = EncodedKey::U64(encode_u64(&columns[0])?[0]);
                Ok((key.clone(), Edge::Last(key)))
            }
            KeyForm::U128 => {
                let rest: u32 = self.types[columns.len()..].iter().filter_map(learned_bits).sum();
                let first = encode_u128(&columns)?[0] << rest;
                let last = first | ((1u128 << rest) - 1);
                Ok((EncodedKey::U128(first), Edge::Last(EncodedKey::U128(last))))
            }
            KeyForm::Bytes => {
                let bytes = self.encode_prefix(&columns)?;
                let key = EncodedKey::Bytes(bytes.clone().into());
                let edge = if whole {
                    Edge::Last(key.clone())
                } else {
                    Edge::Before(prefix_successor(bytes))
                };
                Ok((key, edge))
            }
        }
    }

    /// Row encoding of one row's first columns: the bytes that all keys with these values begin with,
    /// and no others, because the encoding of each column marks its own end.
    fn encode_prefix(&self, columns: &[ArrayRef]) -> Result<Vec<u8>> {
        let rows = if columns.len() == self.types.len() {
            self.converter()?.convert_columns(&normalized(columns)?)?
        } else {
            row_converter(&self.types[..columns.len()])?.convert_columns(&normalized(columns)?)?
        };
        Ok(rows.row(0).data().to_vec())
    }

    fn check_type(&self, i: usize, column: &ArrayRef) -> Result<()> {
        if column.data_type() != &self.types[i] {
            return Err(Error::internal(format!(
                "key column {} is {}, not {}",
                i + 1,
                self.types[i],
                column.data_type()
            )));
        }
        Ok(())
    }

    fn learned_width(&self) -> u32 {
        self.types.iter().filter_map(learned_bits).sum()
    }

    fn converter(&self) -> Result<&RowConverter> {
        self.converter
            .as_deref()
            .ok_or_else(|| Error::internal("a learned key has no row encoding"))
    }
}

/// Where the keys of a prefix end.
enum Edge {
    /// The last key that can begin so.
    Last(EncodedKey),
    /// Just before this key; `None` where nothing comes after.
    Before(Option<EncodedKey>),
}

impl Edge {
    fn upper(self) -> Bound<EncodedKey> {
        match self {
            Self::Last(key) => Bound::Included(key),
            Self::Before(Some(key)) => Bound::Excluded(key),
            Self::Before(None) => Bound::Unbounded,
        }
    }

    fn after(self) -> Bound<EncodedKey> {
        match self {
            Self::Last(key) => Bound::Excluded(key),
            Self::Before(Some(key)) => Bound::Included(key),
            // No encoding of a value begins with 0xff, so that this is never needed; if it were,
            // nothing sorts above all of a prefix without successor but longer runs of 0xff.
            Self::Before(None) => Bound::Excluded(EncodedKey::Bytes(Box::from([0xff; 64]))),
        }
    }
}

fn value_of(bound: &Bound<ArrayRef>) -> Option<&ArrayRef> {
    match bound {
        Bound::Included(v) | Bound::Excluded(v) => Some(v),
        Bound::Unbounded => None,
    }
}

fn row_converter(types: &[DataType]) -> Result<RowConverter> {
    Ok(RowConverter::new(types.iter().cloned().map(SortField::new).collect())?)
}

/// Refuses NULL and NaN.
fn check_values(i: usize, column: &ArrayRef) -> Result<()> {
    fn first_nan<T: ArrowPrimitiveType<Native: OrderedBits>>(column: &ArrayRef) -> Option<usize> {
        column.as_primitive::<T>().values().iter().position(|v| v.is_nan())
    }
    let refused = |row: usize, what: &str| {
        let message = format!("key column {} is {what} in row {row} (from 0)", i + 1);
        Err(Error::new(crate::engine::error::ErrorKind::Constraint, message))
    };
    if column.null_count() > 0 {
        return refused((0..column.len()).find(|r| column.is_null(*r)).unwrap_or(0), "NULL");
    }
    let nan = match column.data_type() {
        DataType::Float32 => first_nan::<Float32Type>(column),
        DataType::Float64 => first_nan::<Float64Type>(column),
        _ => None,
    };
    nan.map_or(Ok(()), |row| refused(row, "NaN"))
}

/// Columns for the row encoder, which knows two zeros: -0 becomes +0.
fn normalized(columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    fn positive_zero<T: ArrowPrimitiveType<Native: OrderedBits>>(column: &ArrayRef) -> ArrayRef {
        let column = column.as_primitive::<T>();
        Arc::new(column.unary::<_, T>(|v| T::Native::decode(v.encode())))
    }
    let one = |column: &ArrayRef| match column.data_type() {
        DataType::Float32 => positive_zero::<Float32Type>(column),
        DataType::Float64 => positive_zero::<Float64Type>(column),
        _ => Arc::clone(column),
    };
    Ok(columns.iter().map(one).collect())
}

fn encode_u64(column: &ArrayRef) -> Result<Vec<u64>> {
    fn encode<T: ArrowPrimitiveType<Native: OrderedBits>>(column: &ArrayRef) -> Vec<u64> {
        column.as_primitive::<T>().values().iter().map(|v| v.encode() as u64).collect()
    }
    if let Some(column) = column.as_boolean_opt() {
        return Ok(column.values().iter().map(u64::from).collect());
    }
    let data_type = column.data_type();
    with_learned_type!(data_type, T => Ok(encode::<T>(column)), Err(not_learned(data_type)))
}

fn encode_u128(columns: &[ArrayRef]) -> Result<Vec<u128>> {
    fn append<T: ArrowPrimitiveType<Native: OrderedBits>>(column: &ArrayRef, out: &mut [u128]) {
        // A first column of 128 bits has nothing before it, and a shift by 128 is no shift.
        let bits = T::Native::BITS % 128;
        for (out, value) in out.iter_mut().zip(column.as_primitive::<T>().values()) {
            *out = (*out << bits) | value.encode();
        }
    }
    let mut out = vec![0u128; columns[0].len()];
    for column in columns {
        if let Some(column) = column.as_boolean_opt() {
            for (out, value) in out.iter_mut().zip(column.values()) {
                *out = (*out << 8) | u128::from(value);
            }
            continue;
        }
        let data_type = column.data_type();
        with_learned_type!(
            data_type,
            T => append::<T>(column, &mut out),
            return Err(not_learned(data_type))
        );
    }
    Ok(out)
}

/// Decodes `len` values from the low bits of `bits(i)`.
fn decode_with(data_type: &DataType, len: usize, bits: impl Fn(usize) -> u128) -> Result<ArrayRef> {
    fn decode<T: ArrowPrimitiveType<Native: OrderedBits>>(
        data_type: &DataType,
        len: usize,
        bits: impl Fn(usize) -> u128,
    ) -> ArrayRef {
        let values = (0..len).map(|i| T::Native::decode(bits(i)));
        let array = PrimitiveArray::<T>::from_iter_values(values);
        Arc::new(array.with_data_type(data_type.clone()))
    }
    if data_type == &DataType::Boolean {
        return Ok(Arc::new((0..len).map(|i| Some(bits(i) & 1 == 1)).collect::<BooleanArray>()));
    }
    with_learned_type!(data_type, T => Ok(decode::<T>(data_type, len, bits)), Err(not_learned(data_type)))
}

fn not_learned(data_type: &DataType) -> Error {
    Error::internal(format!("type {data_type} is not learned"))
}
