//! `VALUES` of literals and parameters as columns, without planning: what bulk inserts through prepared
//! statements and scripts send.
//!
//! A literal takes the type of the column that it goes to, as in PostgreSQL: `0.1` reaches a DECIMAL
//! column digit by digit.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, NullArray, RecordBatch,
    StringArray,
};
use arrow::compute::interleave;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;

use crate::sql::cast::{CastPolicy, ColumnDefault, cast_error, default_array, nulls};
use crate::sql::semantics::literals::fraction;
use crate::sql::semantics::time_zone::TimeZone;
use crate::sql::{Error, Result, types};

/// A cell of a VALUES list that needs no planning.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Default,
    Number(String),
    Text(String),
    Bool(bool),
    /// A parameter, counted from 0.
    Parameter(usize),
}

/// The cells of all rows, row by row, where all of them are such cells. `types` are those of the columns.
pub(super) fn plain_cells(
    rows: &[ast::Parens<Vec<ast::Expr>>],
    types: &[DataType],
) -> Option<Vec<Vec<Cell>>> {
    rows.iter()
        .map(|row| {
            row.content.iter().enumerate().map(|(i, e)| plain_cell(e, types.get(i))).collect()
        })
        .collect()
}

/// An expression that is such a cell, where it goes to a column of type `column`.
pub(super) fn plain_cell(expression: &ast::Expr, column: Option<&DataType>) -> Option<Cell> {
    match expression {
        ast::Expr::Value(value) => value_cell(&value.value),
        ast::Expr::Identifier(name) if is_default(name) => Some(Cell::Default),
        ast::Expr::Nested(inner) => plain_cell(inner, column),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => {
            match plain_cell(expr, column)? {
                Cell::Number(digits) if !digits.starts_with('-') => {
                    Some(Cell::Number(format!("-{digits}")))
                }
                _ => None,
            }
        }
        // DATE '...' into a DATE column, and so on.
        ast::Expr::TypedString(typed) => {
            let data_type = types::data_type(&typed.data_type).ok()?;
            match value_cell(&typed.value.value)? {
                Cell::Text(text) if Some(&data_type) == column => Some(Cell::Text(text)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn value_cell(value: &ast::Value) -> Option<Cell> {
    use ast::Value as V;
    match value {
        V::Null => Some(Cell::Null),
        V::Number(digits, false) => Some(Cell::Number(digits.replace('_', ""))),
        V::Boolean(b) => Some(Cell::Bool(*b)),
        V::SingleQuotedString(t) | V::EscapedStringLiteral(t) => Some(Cell::Text(t.clone())),
        V::DollarQuotedString(t) => Some(Cell::Text(t.value.clone())),
        V::Placeholder(name) => {
            let number = name.strip_prefix('$')?.parse::<usize>().ok()?;
            Some(Cell::Parameter(number.checked_sub(1)?))
        }
        _ => None,
    }
}

/// The digits of a literal number, with its sign.
pub(super) fn number(expression: &ast::Expr) -> Option<String> {
    match plain_cell(expression, None)? {
        Cell::Number(digits) => Some(digits),
        _ => None,
    }
}

/// Whether an expression is the word DEFAULT, which the parser takes for a column.
pub(super) fn is_default(name: &ast::Ident) -> bool {
    name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default")
}

/// How to make the values of one column.
pub(super) struct ColumnCells<'a> {
    pub(super) table: &'a str,
    pub(super) field: &'a Field,
    pub(super) default: &'a ColumnDefault,
    /// The parameters of this execution.
    pub(super) parameters: Option<&'a RecordBatch>,
    /// Where text is a time.
    pub(super) zone: TimeZone,
}

/// What cells have in common that are made in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Null,
    Default,
    Integer,
    Number,
    /// With an exponent: a double.
    Double,
    Text,
    Bool,
    Parameter(usize),
}

impl Cell {
    fn group(&self) -> Group {
        match self {
            Self::Null => Group::Null,
            Self::Default => Group::Default,
            Self::Number(digits) if digits.parse::<i64>().is_ok() => Group::Integer,
            Self::Number(digits) if digits.contains(['e', 'E']) => Group::Double,
            Self::Number(_) => Group::Number,
            Self::Text(_) => Group::Text,
            Self::Bool(_) => Group::Bool,
            Self::Parameter(n) => Group::Parameter(*n),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Number(t) | Self::Text(t) => t,
            _ => "",
        }
    }
}

impl ColumnCells<'_> {
    /// The column of one binding of the parameters (row `binding` of them): a value for each cell.
    pub(super) fn of_rows(&self, cells: &[&Cell], binding: usize) -> Result<ArrayRef> {
        let mut groups: Vec<(Group, Vec<usize>)> = Vec::new();
        let mut places = Vec::with_capacity(cells.len());
        for (row, cell) in cells.iter().enumerate() {
            let group = cell.group();
            let position = groups.iter().position(|(g, _)| *g == group).unwrap_or_else(|| {
                groups.push((group, Vec::new()));
                groups.len() - 1
            });
            places.push((position, groups[position].1.len()));
            groups[position].1.push(row);
        }
        let mut arrays = Vec::with_capacity(groups.len());
        for (group, rows) in &groups {
            arrays.push(self.group_array(*group, rows, cells, binding)?);
        }
        match arrays.len() {
            1 => Ok(arrays.remove(0)),
            _ => {
                let arrays: Vec<_> = arrays.iter().map(AsRef::as_ref).collect();
                interleave(&arrays, &places).map_err(|e| crate::engine::Error::from(e).into())
            }
        }
    }

    /// The column of one cell for every binding of the parameters.
    pub(super) fn of_bindings(&self, cell: &Cell, binding_count: usize) -> Result<ArrayRef> {
        if let Cell::Parameter(n) = cell {
            let given = self.parameter(*n)?;
            return self
                .zone
                .cast_array(given, self.field.data_type(), CastPolicy::Assign)
                .map_err(|f| cast_error(self.table, self.field, given, &f, |row| row as u64));
        }
        let one = |cell| -> Result<ColumnDefault> {
            let value = self.of_rows(&[cell], 0)?;
            let value = datafusion::scalar::ScalarValue::try_from_array(&value, 0);
            Ok(ColumnDefault::Constant(value.map_err(|e| Error::data(e.to_string()))?))
        };
        let value = match cell {
            Cell::Default => default_array(self.default, binding_count)?,
            cell => default_array(&one(cell)?, binding_count)?,
        };
        self.assign(&value, &|row| row as u64)
    }

    fn parameter(&self, n: usize) -> Result<&ArrayRef> {
        let parameters = self.parameters.map(RecordBatch::columns).unwrap_or_default();
        parameters.get(n).ok_or_else(|| missing_parameter(n, parameters.len()))
    }

    fn assign(&self, given: &ArrayRef, row_of: &dyn Fn(usize) -> u64) -> Result<ArrayRef> {
        self.zone
            .cast_array(given, self.field.data_type(), CastPolicy::Assign)
            .map_err(|f| cast_error(self.table, self.field, given, &f, row_of))
    }

    fn group_array(
        &self,
        group: Group,
        rows: &[usize],
        cells: &[&Cell],
        binding: usize,
    ) -> Result<ArrayRef> {
        let texts = || rows.iter().map(|r| cells[*r].text());
        let given: ArrayRef = match group {
            Group::Null => {
                let row_of = |row: usize| rows[row] as u64;
                return nulls(self.field.data_type(), rows.len()).map_err(|f| {
                    let given: ArrayRef = Arc::new(NullArray::new(rows.len()));
                    cast_error(self.table, self.field, &given, &f, row_of)
                });
            }
            Group::Default => default_array(self.default, rows.len())?,
            Group::Integer if self.field.data_type() != &DataType::Utf8 => {
                Arc::new(texts().map(|t| t.parse::<i64>().ok()).collect::<Int64Array>())
            }
            Group::Number | Group::Double if !reads_digits(self.field.data_type()) => {
                let exact = group == Group::Number && self.field.data_type().is_integer();
                match exact.then(|| decimals(texts())).flatten() {
                    Some(decimals) => decimals,
                    None => {
                        Arc::new(texts().map(|t| t.parse::<f64>().ok()).collect::<Float64Array>())
                    }
                }
            }
            Group::Integer | Group::Number | Group::Double | Group::Text => {
                Arc::new(StringArray::from_iter_values(texts()))
            }
            Group::Bool => Arc::new(
                rows.iter()
                    .map(|r| Some(matches!(cells[*r], Cell::Bool(true))))
                    .collect::<BooleanArray>(),
            ),
            Group::Parameter(n) => {
                let value = self.parameter(n)?.slice(binding, 1);
                let value = self.assign(&value, &|_| rows[0] as u64)?;
                let same = arrow::array::UInt32Array::from(vec![0u32; rows.len()]);
                return arrow::compute::take(&value, &same, None)
                    .map_err(|e| crate::engine::Error::from(e).into());
            }
        };
        self.assign(&given, &|row| rows[row] as u64)
    }
}

/// Literals with a point as decimals: they are rounded as decimals where they go to integers.
fn decimals<'a>(texts: impl Iterator<Item = &'a str>) -> Option<ArrayRef> {
    let parts: Vec<(i128, i8)> = texts
        .map(|text| match fraction(text)? {
            ScalarValue::Decimal128(Some(value), _, scale) => Some((value, scale)),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let scale = parts.iter().map(|(_, scale)| *scale).max()?;
    let values = parts.iter().map(|(value, own)| {
        value.checked_mul(10_i128.checked_pow(u32::try_from(scale - own).ok()?)?)
    });
    let values: Decimal128Array = values.collect::<Option<Vec<_>>>()?.into();
    let values = values.with_precision_and_scale(DECIMAL128_MAX_PRECISION, scale).ok()?;
    values.validate_decimal_precision(DECIMAL128_MAX_PRECISION).ok()?;
    Some(Arc::new(values))
}

/// Types that take a number digit by digit, where DOUBLE in between would lose some.
fn reads_digits(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Utf8 | DataType::UInt64
    )
}

/// The error for a parameter that was not bound.
pub(super) fn missing_parameter(n: usize, given: usize) -> Error {
    Error::new(
        crate::sql::Code::UndefinedParameter,
        format!("the statement takes the parameter ${}, and {given} were given", n + 1),
    )
}
