//! Expressions over batches that are not planned as a query: RETURNING, ON CONFLICT DO UPDATE, defaults.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ParamValues};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;

use crate::engine;
use crate::sql::cast::CastPolicy;
use crate::sql::context::PlanContext;
use crate::sql::parameters::plain;
use crate::sql::semantics::time_zone::TimeZone;
use crate::sql::{Error, Result};

/// Expressions over batches of one schema.
#[derive(Debug)]
pub(crate) struct Evaluator {
    /// The schema of the results.
    schema: SchemaRef,
    expressions: Vec<Arc<dyn PhysicalExpr>>,
}

impl Evaluator {
    /// Compiles named expressions over `input`. `clause` names them in errors.
    pub(crate) fn compile(
        context: &PlanContext,
        named: Vec<(Expr, String)>,
        input: &DFSchema,
        parameters: Option<&ParamValues>,
        clause: &str,
    ) -> Result<Self> {
        let mut fields = Vec::with_capacity(named.len());
        let mut expressions = Vec::with_capacity(named.len());
        for (expression, name) in named {
            let expression = prepare(context, expression, input, parameters, clause)?;
            let field = expression.to_field(input)?.1;
            fields.push(Field::new(name, field.data_type().clone(), field.is_nullable()));
            // A parameter that is not bound (a statement that is only described) has a type and no value.
            if !has_placeholder(&expression)? {
                expressions.push(context.state().create_physical_expr(expression, input)?);
            }
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)), expressions })
    }

    /// The schema of the results.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The results for the rows of `batch`.
    pub(crate) fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.expressions
            .iter()
            .map(|e| Ok(e.evaluate(batch)?.into_array(batch.num_rows())?))
            .collect()
    }

    /// The results for the rows of `batch`, as a batch.
    pub(crate) fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let result = RecordBatch::try_new(Arc::clone(&self.schema), self.columns(batch)?);
        result.map_err(|e| engine::Error::from(e).into())
    }
}

/// Binds parameters, casts operands to common types and folds what is constant, the present time too.
pub(crate) fn prepare(
    context: &PlanContext,
    expression: Expr,
    input: &DFSchema,
    parameters: Option<&ParamValues>,
    clause: &str,
) -> Result<Expr> {
    let refused = expression.exists(|e| {
        Ok(is_subquery(e) || matches!(e, Expr::AggregateFunction(_) | Expr::WindowFunction(_)))
    })?;
    if refused {
        return Err(Error::unsupported(format!(
            "{clause}: a subquery, aggregate or window function is not supported there"
        )));
    }
    let expression = match parameters {
        Some(parameters) => bind(expression, input, parameters, &context.zone())?,
        None => expression.infer_placeholder_types(input)?.0,
    };
    let simplify = SimplifyContext::builder()
        .with_schema(Arc::new(input.clone()))
        .with_config_options(Arc::clone(context.state().config_options()))
        .with_query_execution_start_time(
            context.state().execution_props().query_execution_start_time,
        )
        .build();
    let simplifier = ExprSimplifier::new(simplify);
    Ok(simplifier.simplify(context.analyze_expression(expression, input)?)?)
}

/// Whether an expression holds a query, which only a plan can run.
pub(crate) fn is_subquery(expression: &Expr) -> bool {
    matches!(
        expression,
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)
    )
}

fn bind(
    expression: Expr,
    input: &DFSchema,
    parameters: &ParamValues,
    zone: &TimeZone,
) -> Result<Expr> {
    let (expression, any) = expression.infer_placeholder_types(input)?;
    if !any {
        return Ok(expression);
    }
    let bound = expression.transform_up(|e| match e {
        Expr::Placeholder(Placeholder { id, field }) => {
            let (value, metadata) = parameters.get_placeholders_with_values(&id)?.into_inner();
            let value = match field {
                Some(field) => read_as(&value, field.data_type(), &id, zone)?,
                None => value,
            };
            Ok(Transformed::yes(Expr::Literal(value, metadata)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(bound.data)
}

fn has_placeholder(expression: &Expr) -> Result<bool> {
    Ok(expression.exists(|e| Ok(matches!(e, Expr::Placeholder(_))))?)
}

/// A plan with its parameters bound. Each value keeps its own type; text is read as the type that the plan wants.
pub(crate) fn bind_plan(
    plan: LogicalPlan,
    parameters: Option<&ParamValues>,
    zone: &TimeZone,
) -> Result<LogicalPlan> {
    let Some(ParamValues::List(values)) = parameters else { return Ok(plan) };
    let mut values = values.clone();
    // Types that contradict each other are left to the planner.
    for (name, data_type) in plan.get_parameter_types().unwrap_or_default() {
        let place = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
        let place = place.and_then(|n| values.get_mut(n.checked_sub(1)?));
        if let (Some(given), Some(data_type)) = (place, data_type) {
            given.value = read_as(&given.value, &data_type, &name, zone)?;
        }
    }
    Ok(plan.with_param_values(ParamValues::List(values))?)
}

/// A bound value where a value of `data_type` is wanted: text is read as one, all else stays as it is.
fn read_as(
    value: &ScalarValue,
    data_type: &DataType,
    name: &str,
    zone: &TimeZone,
) -> Result<ScalarValue> {
    let given = value.data_type();
    if given == *data_type {
        return Ok(value.clone());
    }
    if given.is_null() {
        return Ok(ScalarValue::try_from(data_type)?);
    }
    if value.is_null() || !matches!(given, DataType::Utf8) || data_type.is_null() {
        return Ok(value.clone());
    }
    match zone.cast_array(&value.to_array()?, data_type, CastPolicy::Lossless) {
        Ok(read) => Ok(ScalarValue::try_from_array(&read, 0)?),
        Err(_) => Err(Error::data(format!(
            "the parameter {name} cannot be read as {data_type}: '{value}'"
        ))),
    }
}

/// The types that an expression wants of its parameters, by name.
pub(crate) fn wanted_types(
    expression: &Expr,
    input: &DFSchema,
) -> Result<HashMap<String, DataType>> {
    let (expression, _) = expression.clone().infer_placeholder_types(input)?;
    let mut types = HashMap::new();
    expression.apply(|e| {
        if let Expr::Placeholder(Placeholder { id, field: Some(field) }) = e {
            types.insert(id.clone(), field.data_type().clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(types)
}

/// The parameters of one binding.
pub(crate) fn param_values(parameters: &RecordBatch, row: usize) -> Result<ParamValues> {
    let values = parameters
        .columns()
        .iter()
        .map(|column| Ok(ScalarValue::try_from_array(&plain(&column.slice(row, 1))?, 0)?))
        .collect::<Result<Vec<_>>>()?;
    Ok(ParamValues::from(values))
}
