//! The SELECT behind UPDATE and DELETE: addresses of the rows to change, and values computed from them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, UInt64Type};
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast;
use roaring::RoaringTreemap;

use super::{qualifier, table};
use crate::engine::{ROW_ADDRESS_COLUMN, RowAddress, TableSnapshot};
use crate::sql::context::{PlanContext, TARGET_CATALOG};
use crate::sql::{Error, Result, allow};

/// The table that an UPDATE or DELETE changes, as its text names it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) table: TableSnapshot,
    pub(super) alias: Option<ast::Ident>,
    /// How expressions name it.
    pub(super) qualifier: TableReference,
    factor: ast::TableFactor,
}

impl Target {
    /// The one table of the statement `verb`.
    pub(super) fn new(
        context: &PlanContext,
        verb: &str,
        tables: &[ast::TableWithJoins],
    ) -> Result<Self> {
        let [ast::TableWithJoins { relation, joins }] = tables else {
            return Err(Error::unsupported(format!("{verb} of several tables is not supported")));
        };
        if !joins.is_empty() {
            return Err(Error::unsupported(format!(
                "{verb} of a join is not supported; name the other tables after {}",
                if verb == "UPDATE" { "FROM" } else { "USING" }
            )));
        }
        let ast::TableFactor::Table { name, alias, args: None, .. } = relation else {
            return Err(Error::unsupported(format!("{verb} {relation} is not supported")));
        };
        if alias.as_ref().is_some_and(|a| !a.columns.is_empty()) {
            return Err(Error::unsupported(format!("{verb} with column aliases is not supported")));
        }
        let name = context.statement().table_name(name)?;
        let table = table(context, &name)?;
        let alias = alias.as_ref().map(|a| a.name.clone());
        let mut factor = relation.clone();
        if let ast::TableFactor::Table { name: factor_name, .. } = &mut factor {
            *factor_name = object_name([TARGET_CATALOG, &name.schema, &name.name]);
        }
        Ok(Self { qualifier: qualifier(&name, alias.as_ref()), table, alias, factor })
    }

    /// One of its columns as an expression.
    pub(super) fn column(&self, name: &str) -> ast::Expr {
        let meta = self.table.meta();
        let quoted = |s: &str| ast::Ident::with_quote('"', s);
        ast::Expr::CompoundIdentifier(match &self.alias {
            Some(alias) => vec![alias.clone(), quoted(name)],
            None => vec![
                quoted(TARGET_CATALOG),
                quoted(&meta.name.schema),
                quoted(&meta.name.name),
                quoted(name),
            ],
        })
    }

    /// The schema that expressions over its rows alone see.
    pub(super) fn df_schema(&self) -> Result<DFSchema> {
        Ok(DFSchema::try_from_qualified_schema(self.qualifier.clone(), &self.table.schema())?)
    }
}

fn object_name<const N: usize>(parts: [&str; N]) -> ast::ObjectName {
    ast::ObjectName::from(parts.map(|p| ast::Ident::with_quote('"', p)).to_vec())
}

/// Rows to change: the address, then one column for each of the wanted expressions, then (where asked) the columns of
/// the other tables.
#[derive(Debug)]
pub(super) struct RowSource {
    plan: LogicalPlan,
    item_count: usize,
    /// Positions of the other tables' columns in the plan's rows.
    others: Vec<usize>,
}

impl RowSource {
    /// Plans the SELECT.
    pub(super) fn plan(
        context: &PlanContext,
        target: &Target,
        items: Vec<ast::Expr>,
        from: &[ast::TableWithJoins],
        selection: Option<&ast::Expr>,
        with_others: bool,
    ) -> Result<Self> {
        let item_count = items.len();
        let named = |expr, name: String| ast::SelectItem::ExprWithAlias {
            expr,
            alias: ast::Ident::with_quote('"', name),
        };
        let mut projection = vec![named(target.column(ROW_ADDRESS_COLUMN), "__address".into())];
        let items = items.into_iter().enumerate();
        projection.extend(items.map(|(i, expr)| named(expr, format!("__{i}"))));
        let with_others = with_others && !from.is_empty();
        if with_others {
            let options = ast::WildcardAdditionalOptions::default();
            projection.push(ast::SelectItem::Wildcard(options));
        }
        let mut query = empty_select()?;
        let ast::SetExpr::Select(select) = query.body.as_mut() else {
            return Err(Error::internal("the template of a SELECT is none"));
        };
        select.projection = projection;
        select.from =
            vec![ast::TableWithJoins { relation: target.factor.clone(), joins: Vec::new() }];
        select.from.extend_from_slice(from);
        select.selection = selection.cloned();
        let plan = context.plan_query(&query)?;
        allow::check(&plan)?;
        let others = plan
            .schema()
            .iter()
            .enumerate()
            .skip(1 + item_count)
            .filter(|(_, (q, _))| q.is_none_or(|q| !target.is_named(q)))
            .map(|(i, _)| i)
            .collect();
        Ok(Self { plan, item_count, others })
    }

    /// The plan.
    pub(super) fn logical_plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// The target's columns, then the other tables': what RETURNING sees.
    pub(super) fn returning_schema(&self, target: &Target) -> Result<DFSchema> {
        let own = target.df_schema()?;
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> =
            own.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        for i in &self.others {
            let (qualifier, field) = self.plan.schema().qualified_field(*i);
            fields.push((qualifier.cloned(), Arc::clone(field)));
        }
        Ok(DFSchema::new_with_metadata(fields, Default::default())?)
    }

    /// Takes one batch of the plan's rows apart.
    pub(super) fn split<'a>(&self, batch: &'a RecordBatch) -> SourceRows<'a> {
        SourceRows {
            addresses: batch.column(0),
            items: &batch.columns()[1..=self.item_count],
            others: self.others.iter().map(|i| Arc::clone(batch.column(*i))).collect(),
        }
    }
}

impl Target {
    fn is_named(&self, qualifier: &TableReference) -> bool {
        match &self.alias {
            Some(_) => qualifier == &self.qualifier,
            None => qualifier.catalog() == Some(TARGET_CATALOG),
        }
    }
}

/// A batch of rows to change.
pub(super) struct SourceRows<'a> {
    addresses: &'a ArrayRef,
    pub(super) items: &'a [ArrayRef],
    pub(super) others: Vec<ArrayRef>,
}

impl SourceRows<'_> {
    /// The addresses of the rows.
    pub(super) fn addresses(&self) -> Vec<RowAddress> {
        self.addresses
            .as_primitive::<UInt64Type>()
            .values()
            .iter()
            .copied()
            .map(RowAddress)
            .collect()
    }
}

/// Lets each row through once: a join finds a row as often as it has partners.
#[derive(Debug, Default)]
pub(super) struct FirstOnly {
    seen: RoaringTreemap,
}

impl FirstOnly {
    /// The rows of `batch` whose address (column 0) has not been seen.
    pub(super) fn filter(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let addresses = batch.column(0).as_primitive::<UInt64Type>();
        let fresh: Vec<bool> = addresses.values().iter().map(|a| self.seen.insert(*a)).collect();
        if fresh.iter().all(|f| *f) {
            return Ok(batch);
        }
        filter_record_batch(&batch, &fresh.into()).map_err(|e| crate::engine::Error::from(e).into())
    }
}

/// A SELECT to be filled in.
pub(super) fn empty_select() -> Result<ast::Query> {
    use datafusion::sql::sqlparser::parser::Parser;
    let query = Parser::new(&crate::sql::dialect::OmenDialect)
        .try_with_sql("SELECT 1")
        .and_then(|mut parser| parser.parse_query())
        .map_err(|e| Error::internal(format!("the template of a SELECT: {e}")))?;
    Ok(*query)
}
