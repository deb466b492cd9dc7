//! Batches of any Arrow types as the exact columns of a table. What does not fit is an error that names
//! column, row and value; nothing becomes NULL on the way.

mod array;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Field, IntervalUnit, Schema, SchemaRef,
};
use arrow::util::display::array_value_to_string;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;

pub(crate) use array::{CastPolicy, Failure, MAX_BATCH_BYTES, cast_array, nulls};

use super::code::Code;
use super::error::{Error, Result};
use super::modifier::Modifier;
use super::semantics::time_zone::{TimeZone, is_text};
use super::types::{sql_name, sql_name_of_field};
use crate::engine::{self, TableMeta, size};

/// Characters of a value that an error message shows at most.
const SHOWN_CHARS: usize = 80;

/// Bytes that one value may take.
const MAX_VALUE_BYTES: u64 = 64 << 20;
/// Batches whose values would take more than this once they are written out are cast in pieces.
const PIECE_BYTES: u64 = 8 << 20;

/// What a column gets where a statement gives it no value.
#[derive(Debug, Clone)]
pub(crate) enum ColumnDefault {
    /// One value, of the column's type, for all rows of the statement.
    Constant(ScalarValue),
    /// An expression over no columns with a new value for every row.
    PerRow(Arc<dyn PhysicalExpr>),
}

/// Where a column of the table comes from.
#[derive(Debug)]
enum Source {
    /// A column of the given batches, by position.
    Given(usize),
    /// Its default.
    Default(ColumnDefault),
}

/// Turns batches of one schema into batches of a table's schema. Counts rows, to name them.
#[derive(Debug)]
pub(crate) struct BatchCaster {
    table: String,
    schema: SchemaRef,
    sources: Vec<Source>,
    policy: CastPolicy,
    /// Where text is a time.
    zone: TimeZone,
    row_count: u64,
}

impl BatchCaster {
    /// Columns matched by name, as a bulk load does.
    pub(crate) fn by_name(
        meta: &TableMeta,
        given: &Schema,
        policy: CastPolicy,
        default: impl FnMut(usize) -> Result<ColumnDefault>,
    ) -> Result<Self> {
        let targets = given
            .fields()
            .iter()
            .map(|f| meta.column_index(f.name()))
            .collect::<engine::Result<Vec<_>>>()?;
        Self::by_position(meta, &targets, policy, default)
    }

    /// The `i`-th given column goes to the table's column `targets[i]`; `default` is asked for the rest.
    pub(crate) fn by_position(
        meta: &TableMeta,
        targets: &[usize],
        policy: CastPolicy,
        mut default: impl FnMut(usize) -> Result<ColumnDefault>,
    ) -> Result<Self> {
        let mut given: Vec<Option<usize>> = vec![None; meta.columns.len()];
        for (i, target) in targets.iter().enumerate() {
            if given[*target].replace(i).is_some() {
                return Err(engine::Error::invalid(format!(
                    "table {}: column \"{}\" is given twice",
                    meta.name,
                    meta.columns[*target].field.name()
                ))
                .into());
            }
        }
        let sources = given
            .into_iter()
            .enumerate()
            .map(|(column, from)| match from {
                Some(i) => Ok(Source::Given(i)),
                None => default(column).map(Source::Default),
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            table: meta.name.to_string(),
            schema: meta.arrow_schema(),
            sources,
            policy,
            zone: TimeZone::utc(),
            row_count: 0,
        })
    }

    /// Reads times in text in a session's zone.
    pub(crate) fn in_zone(mut self, zone: TimeZone) -> Self {
        self.zone = zone;
        self
    }

    /// The batch as the table holds it.
    pub(crate) fn cast(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        self.cast_columns(batch.columns(), batch.num_rows())
    }

    /// [`BatchCaster::cast`] of a batch that may take much more than it does as it came, by defaults and values that rows share:
    /// in pieces, each of which is handed on before the next is made.
    pub(crate) fn cast_each(
        &mut self,
        batch: &RecordBatch,
        mut take: impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let row_count = batch.num_rows();
        let mut start = 0;
        let mut most = row_count;
        loop {
            let mut piece = batch.slice(start, most.min(row_count - start));
            while piece.num_rows() > 1 && self.written_bytes(&piece)? > PIECE_BYTES {
                piece = batch.slice(start, piece.num_rows().div_ceil(2));
            }
            start += piece.num_rows();
            // What comes next is about as large.
            most = piece.num_rows().saturating_mul(2).max(1);
            take(self.cast(&piece)?)?;
            if start >= row_count {
                return Ok(());
            }
        }
    }

    /// What defaults and shared values of a batch take once they are written out.
    fn written_bytes(&self, batch: &RecordBatch) -> Result<u64> {
        let mut bytes: u64 = 0;
        for (source, field) in self.sources.iter().zip(self.schema.fields()) {
            bytes = bytes.saturating_add(match source {
                Source::Given(i) => {
                    let given = batch.column(*i);
                    match given.data_type() {
                        DataType::Null => null_bytes(field.data_type(), batch.num_rows()),
                        given_type if size::may_expand(given_type) => {
                            size::written_bytes(given.as_ref())
                        }
                        _ => 0,
                    }
                }
                Source::Default(default) => default_bytes(default, batch.num_rows())?
                    .max(null_bytes(field.data_type(), batch.num_rows())),
            });
        }
        Ok(bytes)
    }

    /// [`BatchCaster::cast`] of columns that are not in a batch.
    pub(crate) fn cast_columns(
        &mut self,
        given: &[ArrayRef],
        row_count: usize,
    ) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.sources.len());
        for (source, field) in self.sources.iter().zip(self.schema.fields()) {
            let modifier = Modifier::of_field(field);
            let fit = |column: ArrayRef| match modifier {
                Some(modifier) => modifier.assign(&column),
                None => Ok(column),
            };
            let column = match source {
                Source::Given(i) => self
                    .zone
                    .cast_array(&given[*i], field.data_type(), self.policy)
                    .and_then(fit)
                    .map_err(|f| self.error(field, &given[*i], &f))?,
                Source::Default(default) => {
                    let value = default_array(default, row_count)?;
                    cast_array(&value, field.data_type(), CastPolicy::Assign)
                        .and_then(fit)
                        .map_err(|f| self.error(field, &value, &f))?
                }
            };
            if !field.is_nullable() && column.null_count() > 0 {
                let row = (0..row_count).find(|&r| column.is_null(r)).unwrap_or(0);
                return Err(engine::Error::constraint(format!(
                    "table {}: column \"{}\" is NOT NULL, and row {} gives it NULL",
                    self.table,
                    field.name(),
                    self.row_count + row as u64 + 1
                ))
                .into());
            }
            check_values(&column).map_err(|f| self.error(field, &column, &f))?;
            columns.push(column);
        }
        self.row_count += row_count as u64;
        let options = RecordBatchOptions::new().with_row_count(Some(row_count));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| engine::Error::from(e).into())
    }

    fn error(&self, field: &Field, given: &ArrayRef, failure: &Failure) -> Error {
        cast_error(&self.table, field, given, failure, |row| self.row_count + row as u64)
    }
}

/// The error for values that a column cannot hold. `row_of` says where in the statement a row of `given`
/// stands, counted from 0; messages count from 1.
pub(crate) fn cast_error(
    table: &str,
    field: &Field,
    given: &ArrayRef,
    failure: &Failure,
    row_of: impl Fn(usize) -> u64,
) -> Error {
    let column = format!("table {table}: column \"{}\"", field.name());
    let to = sql_name_of_field(field);
    let code = failure_code(given.data_type(), field.data_type(), failure);
    let message = match failure {
        Failure::Type => format!(
            "{column} has the type {to}, and values of type {} cannot be put there without a cast",
            sql_name(given.data_type())
        ),
        Failure::Value { row, reason } => format!(
            "{column} ({to}), row {}: the value {} {reason}",
            row_of(*row) + 1,
            show(given, *row)
        ),
        Failure::TooLong { row } => format!(
            "{column}, row {}: the value {} is too long for {to}",
            row_of(*row) + 1,
            show(given, *row)
        ),
        Failure::Whole(reason) => format!("{column} ({to}): {reason}"),
    };
    Error::new(code, message)
}

/// Refuses values that are larger than one may be.
fn check_values(column: &ArrayRef) -> Result<(), Failure> {
    let variable = matches!(
        column.data_type(),
        DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::Map(_, _)
    );
    if !variable || size::written_bytes(column.as_ref()) <= MAX_VALUE_BYTES {
        return Ok(());
    }
    for row in 0..column.len() {
        let bytes = size::written_bytes(column.slice(row, 1).as_ref());
        if bytes > MAX_VALUE_BYTES {
            return Err(Failure::Whole(format!(
                "a value takes {bytes} bytes, and {MAX_VALUE_BYTES} is the most that one may take"
            )));
        }
    }
    Ok(())
}

fn null_bytes(data_type: &DataType, row_count: usize) -> u64 {
    size::null_bytes(data_type).saturating_mul(row_count as u64)
}

/// What a default takes for some rows.
fn default_bytes(default: &ColumnDefault, row_count: usize) -> Result<u64> {
    Ok(match default {
        ColumnDefault::Constant(value) if value.is_null() => {
            null_bytes(&value.data_type(), row_count)
        }
        ColumnDefault::Constant(value) => {
            let one =
                value.to_array().map_err(|e| Error::new(Code::DataException, e.to_string()))?;
            size::written_bytes(one.as_ref()).saturating_mul(row_count as u64)
        }
        // Numbers, times and short texts.
        ColumnDefault::PerRow(_) => 0,
    })
}

/// What is wrong with a value that cannot be cast.
pub(crate) fn failure_code(from: &DataType, to: &DataType, failure: &Failure) -> Code {
    let temporal = to.is_temporal();
    match failure {
        Failure::Type => Code::DatatypeMismatch,
        Failure::Value { .. } if is_text(from) && temporal => Code::InvalidDatetimeFormat,
        Failure::Value { .. } if is_text(from) => Code::InvalidTextRepresentation,
        Failure::Value { .. } if temporal => Code::DatetimeFieldOverflow,
        Failure::Value { .. } => Code::NumericValueOutOfRange,
        Failure::TooLong { .. } => Code::StringDataRightTruncation,
        Failure::Whole(_) => Code::DataException,
    }
}

/// The values of a default for some rows.
pub(crate) fn default_array(default: &ColumnDefault, row_count: usize) -> Result<ArrayRef> {
    let bytes = default_bytes(default, row_count)?;
    if bytes > MAX_BATCH_BYTES {
        return Err(Error::new(
            Code::ConfigurationLimitExceeded,
            format!(
                "a column's default takes {bytes} bytes for {row_count} rows, and {MAX_BATCH_BYTES} are allowed at a \
                 time: insert fewer rows at a time"
            ),
        ));
    }
    let array = match default {
        ColumnDefault::Constant(value) => value.to_array_of_size(row_count),
        ColumnDefault::PerRow(expression) => {
            let options = RecordBatchOptions::new().with_row_count(Some(row_count));
            let rows =
                RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)
                    .map_err(engine::Error::from)?;
            expression.evaluate(&rows).and_then(|v| v.into_array(row_count))
        }
    };
    array.map_err(|e| Error::data(format!("a column's default: {e}")))
}

/// A value as a message shows it.
pub(crate) fn show(array: &ArrayRef, row: usize) -> String {
    let text = array_value_to_string(array, row).unwrap_or_else(|_| "?".to_owned());
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    let cut = if shown.len() < text.len() { "..." } else { "" };
    match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => format!("'{shown}{cut}'"),
        _ => format!("{shown}{cut}"),
    }
}

/// The schema that a table gets for batches of `given`: encodings that are only a way to send values
/// (dictionaries, runs, views, large offsets) become the plain type. What cannot be stored is an error that names the column.
pub(crate) fn storable_schema(given: &Schema) -> Result<Schema> {
    let fields = given
        .fields()
        .iter()
        .map(|field| {
            let data_type = storable_type(field.data_type()).ok_or_else(|| {
                Error::unsupported(format!(
                    "column \"{}\": the type {} cannot be stored",
                    field.name(),
                    sql_name(field.data_type())
                ))
            })?;
            Ok(Field::new(field.name(), data_type, field.is_nullable()))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Schema::new(fields))
}

/// The type that a table's column has for values of `given`.
fn storable_type(given: &DataType) -> Option<DataType> {
    use DataType::*;
    let item = |field: &Field| -> Option<Arc<Field>> {
        let data_type = storable_type(field.data_type())?;
        Some(Arc::new(Field::new(field.name(), data_type, field.is_nullable())))
    };
    Some(match given {
        Dictionary(_, values) => storable_type(values)?,
        RunEndEncoded(_, values) => storable_type(values.data_type())?,
        // A column of which nothing is known but that it is NULL.
        Null | Utf8View | LargeUtf8 => Utf8,
        BinaryView | LargeBinary => Binary,
        Float16 => Float32,
        // No digits after the point, and room for the zeros before it.
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s)
            if *s < 0 && p.saturating_add(s.unsigned_abs()) <= DECIMAL128_MAX_PRECISION =>
        {
            Decimal128(p.saturating_add(s.unsigned_abs()), 0)
        }
        Decimal32(p, s) | Decimal64(p, s) => Decimal128(*p, *s),
        List(f) | LargeList(f) | ListView(f) | LargeListView(f) => List(item(f)?),
        FixedSizeList(f, n) => FixedSizeList(item(f)?, *n),
        Struct(fields) if !fields.is_empty() => {
            Struct(fields.iter().map(|f| item(f)).collect::<Option<Vec<_>>>()?.into())
        }
        Map(f, sorted) => Map(item(f)?, *sorted),
        Struct(_) | Union(_, _) | Interval(IntervalUnit::MonthDayNano) => return None,
        other => other.clone(),
    })
}
