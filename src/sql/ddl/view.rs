//! CREATE VIEW and DROP VIEW. A view is kept as SQL text and planned where it is used.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};

use crate::engine::{self, Transaction};
use crate::sql::context::{StatementContext, fold};
use crate::sql::dml::refuse;
use crate::sql::error::quote;
use crate::sql::{Error, Result, allow};

/// Runs CREATE VIEW.
pub(super) fn create_view(
    context: &StatementContext,
    transaction: &mut Transaction,
    create: &ast::CreateView,
) -> Result<()> {
    refuse(&[
        ("CREATE OR ALTER VIEW", create.or_alter),
        ("CREATE MATERIALIZED VIEW", create.materialized),
        ("CREATE SECURE VIEW", create.secure),
        ("CREATE VIEW ... CLUSTER BY", !create.cluster_by.is_empty()),
        ("CREATE VIEW ... COMMENT", create.comment.is_some()),
        ("WITH NO SCHEMA BINDING", create.with_no_schema_binding),
        ("CREATE TEMPORARY VIEW", create.temporary),
        ("COPY GRANTS", create.copy_grants),
        ("CREATE VIEW ... TO", create.to.is_some()),
        ("CREATE VIEW with ALGORITHM, DEFINER or SECURITY", create.params.is_some()),
        ("CREATE VIEW ... WITH (...)", create.options != ast::CreateTableOptions::None),
        (
            "CREATE VIEW with types or options of columns",
            create.columns.iter().any(|c| c.data_type.is_some() || c.options.is_some()),
        ),
    ])?;
    let name = context.table_name(&create.name)?;
    let snapshot = transaction.snapshot();
    let exists = snapshot.view(&name).is_some();
    if snapshot.table(&name).is_some() {
        return Err(engine::Error::already_exists(format!("{name} exists and is a table"))
            .of(engine::ObjectKind::Table)
            .into());
    }
    if exists && create.if_not_exists {
        return Ok(());
    }
    if exists && !create.or_replace {
        return Err(engine::Error::already_exists(format!(
            "view {name} exists; use CREATE OR REPLACE VIEW"
        ))
        .into());
    }
    let mut query = create.query.as_ref().clone();
    qualify(context, &mut query);
    let sql = if create.columns.is_empty() {
        query.to_string()
    } else {
        let columns: Vec<String> = create.columns.iter().map(|c| quote(&fold(&c.name))).collect();
        let columns = columns.join(", ");
        format!("SELECT * FROM ({query}) AS {} ({columns})", quote(&name.name))
    };
    transaction.put_view(&name, &sql)?;
    // Planned as it will be when used: this finds a view that refers to itself, too.
    let select = format!("SELECT * FROM {}.{}", quote(&name.schema), quote(&name.name));
    let plan_context = context.plan_context(&transaction.snapshot());
    let statement = crate::sql::parse::parse_one(&select, context.database.options())?;
    let crate::sql::parse::Statement::Query(statement) = statement else {
        return Err(Error::internal("a SELECT is not a query"));
    };
    let plan = plan_context.plan(&statement)?;
    allow::check(&plan)?;
    if !plan.get_parameter_names()?.is_empty() || sql_has_parameter(create) {
        return Err(Error::unsupported("a parameter in a view is not supported"));
    }
    Ok(())
}

fn sql_has_parameter(create: &ast::CreateView) -> bool {
    let visited = ast::visit_expressions(create.query.as_ref(), |e| match e {
        ast::Expr::Value(value) if matches!(value.value, ast::Value::Placeholder(_)) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    visited.is_break()
}

/// Runs DROP VIEW for one view.
pub(super) fn drop_view(
    context: &StatementContext,
    transaction: &mut Transaction,
    name: &ast::ObjectName,
    if_exists: bool,
) -> Result<()> {
    let name = context.table_name(name)?;
    let snapshot = transaction.snapshot();
    if snapshot.view(&name).is_some() {
        return Ok(transaction.drop_view(&name)?);
    }
    if snapshot.table(&name).is_some() {
        return Err(engine::Error::invalid(format!("{name} is a table; use DROP TABLE")).into());
    }
    if if_exists {
        return Ok(());
    }
    Err(engine::Error::not_found(format!("view {name} does not exist"))
        .of(engine::ObjectKind::Table)
        .into())
}

/// Puts the schema before bare names of tables: a view means the same whatever the session that uses it
/// has set.
fn qualify(context: &StatementContext, query: &mut ast::Query) {
    struct Names(HashSet<String>);
    impl VisitorMut for Names {
        type Break = ();
        fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
            for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
                self.0.insert(fold(&cte.alias.name));
            }
            ControlFlow::Continue(())
        }
    }
    struct Qualify<'a>(HashSet<String>, &'a str);
    impl VisitorMut for Qualify<'_> {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<()> {
            if let ast::TableFactor::Table { name, args: None, .. } = factor
                && let [ast::ObjectNamePart::Identifier(ident)] = name.0.as_slice()
                && !self.0.contains(&fold(ident))
            {
                let schema = ast::Ident::with_quote('"', self.1);
                *name = ast::ObjectName::from(vec![schema, ident.clone()]);
            }
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(HashSet::new());
    let _ = VisitMut::visit(query, &mut names);
    let mut qualify = Qualify(names.0, &context.settings.current_schema);
    let _ = VisitMut::visit(query, &mut qualify);
}
