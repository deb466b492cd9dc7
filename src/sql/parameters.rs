//! Parameters of statements: their types as far as they can be told, and their values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::CastOptions;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::FormatOptions;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, Limit, LogicalPlan};

use super::cast::CastPolicy;
use super::error::{Error, Result};
use super::semantics::floats::canonical_array;
use super::semantics::time::cast::is_time_cast;
use super::semantics::time::cast_function::failure_of;
use super::semantics::time_zone::{TimeZone, is_text};

/// A field for each parameter of a plan, named "$1", "$2", ...; Utf8 where the type cannot be told.
pub(crate) fn of_plan(plan: &LogicalPlan) -> Result<SchemaRef> {
    let mut types = plan.get_parameter_types()?;
    if types.is_empty() {
        return Ok(Arc::new(Schema::empty()));
    }
    hints(plan, &mut |id, data_type| {
        let known = types.entry(id.to_owned()).or_default();
        if known.is_none() {
            *known = Some(data_type.clone());
        }
    })?;
    let mut count = 0;
    for id in types.keys() {
        let number = id.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
        let number = number.ok_or_else(|| {
            Error::syntax(format!("the parameter \"{id}\" is not of the form $1"))
        })?;
        count = count.max(number);
    }
    let fields: Vec<Field> = (1..=count)
        .map(|number| {
            let name = format!("${number}");
            let data_type = match types.remove(&name).flatten() {
                Some(DataType::Null) | None => DataType::Utf8,
                Some(known) => known,
            };
            Field::new(name, data_type, true)
        })
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Types that DataFusion does not infer: of LIMIT and OFFSET, and of a cast's operand.
fn hints(plan: &LogicalPlan, found: &mut dyn FnMut(&str, &DataType)) -> Result<()> {
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::Limit(Limit { skip, fetch, .. }) = plan {
            for expr in [skip, fetch].into_iter().flatten() {
                if let Expr::Placeholder(p) = expr.as_ref() {
                    found(&p.id, &DataType::Int64);
                }
            }
        }
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Cast(cast) = expr
                    && let Expr::Placeholder(p) = cast.expr.as_ref()
                {
                    found(&p.id, cast.field.data_type());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

/// Types that a parameter of which nothing is known may have, for a description: the first that the statement can be planned with.
const GUESSES: [DataType; 5] = [
    DataType::Utf8,
    DataType::Null,
    DataType::Int64,
    DataType::Float64,
    DataType::Timestamp(TimeUnit::Microsecond, None),
];

/// NULLs of the parameters' types, to plan with; several choices where nothing tells some of the types, the likeliest first.
pub(crate) fn nulls(parameters: &Schema) -> Result<Vec<Vec<ScalarValue>>> {
    let untold = parameters.fields().iter().any(|f| *f.data_type() == DataType::Utf8);
    let guesses = if untold { GUESSES.as_slice() } else { &GUESSES[..1] };
    let of = |guess: &DataType| {
        let types = parameters.fields().iter().map(|f| match f.data_type() {
            DataType::Utf8 => guess,
            known => known,
        });
        types.map(|t| ScalarValue::try_from(t).map_err(Error::from)).collect()
    };
    guesses.iter().map(of).collect()
}

/// The values of each binding: one for each row of `values`, or a single one where the statement takes
/// none.
pub(crate) fn bindings(
    parameters: &Schema,
    values: Option<&RecordBatch>,
    zone: &TimeZone,
) -> Result<Vec<Vec<ScalarValue>>> {
    let expected = parameters.fields().len();
    let given = values.map_or(0, RecordBatch::num_columns);
    if expected != given {
        return Err(Error::data(format!(
            "the statement takes {expected} parameter{} and {given} {} given",
            if expected == 1 { "" } else { "s" },
            if given == 1 { "was" } else { "were" }
        )));
    }
    let Some(values) = values.filter(|_| expected > 0) else { return Ok(vec![Vec::new()]) };
    let columns = own_columns(parameters, values, zone)?;
    (0..values.num_rows())
        .map(|row| {
            columns
                .iter()
                .map(|c| ScalarValue::try_from_array(c, row).map_err(Error::from))
                .collect()
        })
        .collect()
}

/// A NULL of each type that bound values have in a statement; `None` where these are just what it was described with.
pub(crate) fn bound_types(
    parameters: &Schema,
    values: Option<&RecordBatch>,
    zone: &TimeZone,
) -> Result<Option<Vec<ScalarValue>>> {
    let Some(values) = values else { return Ok(None) };
    if values.num_columns() != parameters.fields().len() {
        return Ok(None);
    }
    let columns = own_columns(parameters, &values.slice(0, 0), zone)?;
    let described = parameters.fields().iter().map(|f| f.data_type());
    if columns.iter().map(|c| c.data_type()).eq(described) {
        return Ok(None);
    }
    let nulls = columns.iter().map(|c| ScalarValue::try_from(c.data_type()).map_err(Error::from));
    nulls.collect::<Result<_>>().map(Some)
}

/// The values as the statement sees them: each of its own type, as if a literal stood there. Text is read as the type that the
/// statement wants, as a literal without a type is.
fn own_columns(
    parameters: &Schema,
    values: &RecordBatch,
    zone: &TimeZone,
) -> Result<Vec<ArrayRef>> {
    let columns = parameters.fields().iter().zip(values.columns());
    columns.map(|(field, column)| own_column(field, column, zone)).collect()
}

fn own_column(field: &Field, column: &ArrayRef, zone: &TimeZone) -> Result<ArrayRef> {
    let column = plain(column)?;
    let wanted = field.data_type();
    let keeps = column.data_type() == wanted
        || *wanted == DataType::Utf8
        || (column.data_type().is_numeric() && wanted.is_numeric())
        // Beside what the statement made the planner think of: `? - 40` is a date where one is bound.
        || column.data_type().is_temporal();
    // What is NULL without a type has that which is wanted.
    match keeps && !column.data_type().is_null() {
        true => Ok(column),
        false => cast(field, &column, zone),
    }
}

/// Values in the plain type of their kind: literals have no other. Nothing is lost by it.
pub(crate) fn plain(column: &ArrayRef) -> Result<ArrayRef> {
    use DataType as D;
    let to = match column.data_type() {
        D::Dictionary(_, values) => values.as_ref().clone(),
        D::RunEndEncoded(_, values) => values.data_type().clone(),
        D::LargeUtf8 | D::Utf8View => D::Utf8,
        D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => D::Binary,
        D::Float16 => D::Float32,
        D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s) if *s < 0 => {
            // Hundreds, say, are integers.
            D::Decimal128(p.saturating_add(s.unsigned_abs()).min(DECIMAL128_MAX_PRECISION), 0)
        }
        D::Decimal32(p, s) | D::Decimal64(p, s) => D::Decimal128(*p, *s),
        D::Float32 | D::Float64 => return Ok(canonical_array(column)),
        _ => return Ok(Arc::clone(column)),
    };
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    plain(&arrow::compute::cast_with_options(column, &to, &options)?)
}

/// The values of one parameter in its type; a value that does not fit is an error, never NULL.
fn cast(field: &Field, column: &ArrayRef, zone: &TimeZone) -> Result<ArrayRef> {
    if is_text(column.data_type()) && is_time_cast(column.data_type(), field.data_type()) {
        let read = zone.cast_array(column, field.data_type(), CastPolicy::Assign);
        return read.map_err(|failure| {
            let error = failure_of(column, field.data_type(), &failure);
            Error::new(error.code(), format!("parameter {}: {}", field.name(), error.message()))
        });
    }
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    arrow::compute::cast_with_options(column, field.data_type(), &options).map_err(|e| {
        Error::data(format!(
            "parameter {}: a value of type {} does not fit {}: {}",
            field.name(),
            column.data_type(),
            field.data_type(),
            Error::from(e)
        ))
    })
}

#[cfg(test)]
mod tests;
