//! Parameters of statements: their types as far as they can be told, and their values.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::CastOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::FormatOptions;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, Limit, LogicalPlan};

use super::cast::CastPolicy;
use super::error::{Error, Result};
use super::semantics::time_zone::TimeZone;

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

/// A NULL of each parameter's type.
pub(crate) fn nulls(parameters: &Schema) -> Result<Vec<ScalarValue>> {
    parameters
        .fields()
        .iter()
        .map(|f| ScalarValue::try_from(f.data_type()).map_err(Error::from))
        .collect()
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
    let mut columns = Vec::with_capacity(expected);
    for (field, column) in parameters.fields().iter().zip(values.columns()) {
        columns.push(cast(field, column, zone)?);
    }
    (0..values.num_rows())
        .map(|row| {
            columns
                .iter()
                .map(|c| ScalarValue::try_from_array(c, row).map_err(Error::from))
                .collect()
        })
        .collect()
}

/// The values of one parameter in its type; a value that does not fit is an error, never NULL.
fn cast(field: &Field, column: &Arc<dyn Array>, zone: &TimeZone) -> Result<Arc<dyn Array>> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    // Text that cannot be read so says why below.
    if matches!(field.data_type(), DataType::Timestamp(_, Some(_)))
        && let Ok(read) = zone.cast_array(column, field.data_type(), CastPolicy::Assign)
    {
        return Ok(read);
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
