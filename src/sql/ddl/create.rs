//! CREATE TABLE, with rows of a query too.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;

use super::check_column_names;
use crate::engine::{KeySpec, OnConflict, TableId, Transaction};
use crate::sql::cast::{BatchCaster, CastPolicy, storable_schema};
use crate::sql::context::{StatementContext, fold};
use crate::sql::dialect::OmenDialect;
use crate::sql::dml::refuse;
use crate::sql::modifier::Modifier;
use crate::sql::semantics::names;
use crate::sql::{Error, Result, allow, defaults, types};

/// A column as its definition says.
#[derive(Debug, Clone)]
pub(super) struct ColumnDefinition {
    pub(super) name: String,
    /// `None` where a query is to say.
    data_type: Option<DataType>,
    /// Length or precision.
    modifier: Option<Modifier>,
    pub(super) nullable: bool,
    pub(super) default: Option<ast::Expr>,
    pub(super) primary_key: bool,
}

impl ColumnDefinition {
    pub(super) fn new(definition: &ast::ColumnDef) -> Result<Self> {
        let name = fold(&definition.name);
        let data_type = match &definition.data_type {
            ast::DataType::Unspecified => None,
            sql => Some(types::data_type(sql)?),
        };
        let modifier = Modifier::of_type(&definition.data_type)?;
        let mut column =
            Self { name, data_type, modifier, nullable: true, default: None, primary_key: false };
        for ast::ColumnOptionDef { option, .. } in &definition.options {
            match option {
                ast::ColumnOption::Null => {}
                ast::ColumnOption::NotNull => column.nullable = false,
                ast::ColumnOption::Default(expression) => {
                    column.default = Some(expression.clone());
                }
                ast::ColumnOption::PrimaryKey(constraint) => {
                    plain_key(constraint)?;
                    column.primary_key = true;
                }
                other => {
                    let name = option_name(other);
                    return Err(Error::unsupported(format!(
                        "column \"{}\": {name} is not supported",
                        column.name
                    )));
                }
            }
        }
        Ok(column)
    }

    /// The field of the table.
    pub(super) fn field(&self) -> Result<Field> {
        let data_type = self
            .data_type
            .clone()
            .ok_or_else(|| Error::syntax(format!("column \"{}\" has no type", self.name)))?;
        let schema = Schema::new(vec![Field::new(&self.name, data_type, self.nullable)]);
        check_column_names(&schema)?;
        // Types that cannot be stored are refused here.
        let field = storable_schema(&schema)?.field(0).clone();
        Ok(match self.modifier {
            Some(modifier) => modifier.on(field),
            None => field,
        })
    }
}

fn option_name(option: &ast::ColumnOption) -> String {
    use ast::ColumnOption as O;
    match option {
        O::Unique(_) => "UNIQUE".into(),
        O::ForeignKey(_) => "REFERENCES (a foreign key)".into(),
        O::Check(_) => "CHECK".into(),
        O::Generated { .. } => "GENERATED".into(),
        O::Identity(_) => "IDENTITY".into(),
        O::Collation(_) => "COLLATE".into(),
        other => other.to_string(),
    }
}

/// Refuses what a PRIMARY KEY may carry and does nothing here.
pub(super) fn plain_key(constraint: &ast::PrimaryKeyConstraint) -> Result<()> {
    refuse(&[
        ("PRIMARY KEY with an index name", constraint.index_name.is_some()),
        ("PRIMARY KEY USING", constraint.index_type.is_some()),
        ("PRIMARY KEY with index options", !constraint.index_options.is_empty()),
        ("PRIMARY KEY DEFERRABLE", constraint.characteristics.is_some()),
    ])
}

/// The columns of a PRIMARY KEY constraint.
pub(super) fn key_columns(constraint: &ast::PrimaryKeyConstraint) -> Result<Vec<String>> {
    plain_key(constraint)?;
    constraint
        .columns
        .iter()
        .map(|column| {
            let options = &column.column.options;
            if options.asc == Some(false) || options.nulls_first.is_some() {
                return Err(Error::unsupported(format!(
                    "PRIMARY KEY ({column}) is not supported: keys are in ascending order"
                )));
            }
            column_name(&column.column.expr)
        })
        .collect()
}

/// The columns of a list of expressions such as that of CLUSTER BY.
pub(super) fn column_names(expressions: &[ast::Expr]) -> Result<Vec<String>> {
    let mut names = Vec::with_capacity(expressions.len());
    for expression in expressions {
        match expression {
            ast::Expr::Tuple(items) => names.extend(column_names(items)?),
            ast::Expr::Nested(item) => names.extend(column_names(std::slice::from_ref(item))?),
            other => names.push(column_name(other)?),
        }
    }
    Ok(names)
}

fn column_name(expression: &ast::Expr) -> Result<String> {
    match expression {
        ast::Expr::Identifier(name) => Ok(fold(name)),
        other => {
            Err(Error::unsupported(format!("a key of the expression {other} is not supported")))
        }
    }
}

/// Refuses all clauses but those that [`create_table`] reads.
fn refuse_clauses(create: &ast::CreateTable) -> Result<()> {
    refuse(&[
        ("CREATE OR REPLACE TABLE", create.or_replace),
        ("CREATE TEMPORARY TABLE", create.temporary || create.global.is_some()),
        ("CREATE EXTERNAL TABLE", create.external),
        ("CREATE TABLE ... LIKE", create.like.is_some()),
        ("CREATE TABLE ... CLONE", create.clone.is_some()),
        ("INHERITS", create.inherits.is_some()),
        ("PARTITION BY", create.partition_by.is_some() || create.partition_of.is_some()),
        ("ORDER BY in CREATE TABLE (use CLUSTER BY)", create.order_by.is_some()),
        ("ON COMMIT", create.on_commit.is_some()),
        ("WITH (...) in CREATE TABLE", create.table_options != ast::CreateTableOptions::None),
    ])?;
    // Whatever else the parser knows: a statement with only the clauses that are read must be equal to one
    // without any.
    let template = Parser::new(&OmenDialect)
        .try_with_sql("CREATE TABLE t (c INT)")
        .and_then(|mut parser| parser.parse_statement())
        .map_err(|e| Error::internal(format!("the template of CREATE TABLE: {e}")))?;
    let ast::Statement::CreateTable(template) = template else {
        return Err(Error::internal("the template of CREATE TABLE is none"));
    };
    let rest = ast::CreateTable {
        name: template.name.clone(),
        columns: template.columns.clone(),
        constraints: Vec::new(),
        if_not_exists: false,
        query: None,
        primary_key: None,
        cluster_by: None,
        ..create.clone()
    };
    if rest == template {
        return Ok(());
    }
    let clause = rest.to_string();
    let clause = clause.strip_prefix("CREATE TABLE t (c INT)").unwrap_or(&clause).trim();
    Err(Error::unsupported(format!("CREATE TABLE ... {clause} is not supported")))
}

/// The key that a definition asks for.
fn key(create: &ast::CreateTable, columns: &[ColumnDefinition]) -> Result<KeySpec> {
    let mut keys: Vec<KeySpec> = columns
        .iter()
        .filter(|column| column.primary_key)
        .map(|column| KeySpec::primary([column.name.as_str()]))
        .collect();
    for constraint in &create.constraints {
        match constraint {
            ast::TableConstraint::PrimaryKey(constraint) => {
                keys.push(KeySpec::primary(key_columns(constraint)?));
            }
            other => return Err(constraint_refused(other)),
        }
    }
    if let Some(expression) = &create.primary_key {
        keys.push(KeySpec::primary(column_names(std::slice::from_ref(expression))?));
    }
    match &create.cluster_by {
        None => {}
        Some(
            ast::WrappedCollection::NoWrapping(columns)
            | ast::WrappedCollection::Parentheses(columns),
        ) => keys.push(KeySpec::cluster(column_names(columns)?)),
    }
    if keys.len() > 1 {
        return Err(Error::syntax(
            "a table has one key: a PRIMARY KEY or a CLUSTER BY, named once; list several columns in one",
        ));
    }
    Ok(keys.pop().unwrap_or_else(KeySpec::row_id))
}

/// The error for a table constraint other than PRIMARY KEY.
pub(super) fn constraint_refused(constraint: &ast::TableConstraint) -> Error {
    use ast::TableConstraint as C;
    let name = match constraint {
        C::Unique(_) => "UNIQUE".to_owned(),
        C::ForeignKey(_) => "FOREIGN KEY".to_owned(),
        C::Check(_) => "CHECK".to_owned(),
        other => other.to_string(),
    };
    Error::unsupported(format!("{name} is not supported"))
}

/// Runs CREATE TABLE.
pub(super) fn create_table(
    context: &StatementContext,
    transaction: &mut Transaction,
    create: &ast::CreateTable,
) -> Result<()> {
    refuse_clauses(create)?;
    let columns = create.columns.iter().map(ColumnDefinition::new).collect::<Result<Vec<_>>>()?;
    let key = key(create, &columns)?;
    let name = context.table_name(&create.name)?;
    let snapshot = transaction.snapshot();
    if create.if_not_exists && (snapshot.table(&name).is_some() || snapshot.view(&name).is_some()) {
        return Ok(());
    }
    match &create.query {
        None => {
            let fields = columns.iter().map(ColumnDefinition::field).collect::<Result<Vec<_>>>()?;
            let id = transaction.create_table(&name, &Schema::new(fields), &key)?;
            set_defaults(context, transaction, id, &columns)
        }
        Some(query) => {
            let plan_context = context.plan_context(&snapshot);
            let plan = plan_context.plan_query(query)?;
            allow::check(&plan)?;
            let schema = query_schema(plan.schema().as_arrow(), columns.clone())?;
            let id = transaction.create_table(&name, &schema, &key)?;
            set_defaults(context, transaction, id, &columns)?;
            let mut write = transaction.write(id, OnConflict::Error)?;
            let meta = Arc::clone(write.table().meta());
            let all: Vec<usize> = (0..meta.columns.len()).collect();
            let mut caster = BatchCaster::by_position(&meta, &all, CastPolicy::Assign, |_| {
                Err(Error::internal("every column of CREATE TABLE AS is given"))
            })?
            .in_zone(plan_context.zone());
            for batch in plan_context.run(&plan)? {
                caster.cast_each(&batch?, |piece| Ok(write.insert(&piece)?))?;
            }
            transaction.apply(write)?;
            Ok(())
        }
    }
}

/// The schema of CREATE TABLE AS: the query's columns, which a column list may rename and give types.
fn query_schema(given: &Schema, columns: Vec<ColumnDefinition>) -> Result<Schema> {
    if columns.is_empty() {
        let fields: Vec<Field> = given
            .fields()
            .iter()
            .map(|f| Field::new(names::shown(f.name()), f.data_type().clone(), true))
            .collect();
        names::check_unique(fields.iter().map(|f| f.name().as_str()))?;
        let schema = Schema::new(fields);
        check_column_names(&schema)?;
        return storable_schema(&schema);
    }
    if columns.len() != given.fields().len() {
        return Err(Error::syntax(format!(
            "CREATE TABLE AS names {} columns, and its query has {}",
            columns.len(),
            given.fields().len()
        )));
    }
    let fields = columns
        .into_iter()
        .zip(given.fields())
        .map(|(mut column, field)| {
            column.data_type.get_or_insert_with(|| field.data_type().clone());
            column.field()
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Schema::new(fields))
}

/// Stores the DEFAULTs of a new table, checked.
fn set_defaults(
    context: &StatementContext,
    transaction: &mut Transaction,
    id: TableId,
    columns: &[ColumnDefinition],
) -> Result<()> {
    if columns.iter().all(|column| column.default.is_none()) {
        return Ok(());
    }
    transaction.alter_table(id, |meta| {
        for (column, definition) in meta.columns.iter_mut().zip(columns) {
            column.default_sql = definition.default.as_ref().map(ToString::to_string);
        }
        Ok(())
    })?;
    check_defaults(context, transaction, id)
}

/// Checks that the DEFAULTs of a table can be evaluated and fit their columns.
pub(super) fn check_defaults(
    context: &StatementContext,
    transaction: &Transaction,
    id: TableId,
) -> Result<()> {
    let plan_context = context.plan_context(&transaction.snapshot());
    let Some(table) = plan_context.snapshot().table_by_id(id) else { return Ok(()) };
    for (i, column) in table.meta().columns.iter().enumerate() {
        if column.default_sql.is_some() {
            defaults::column_default(&plan_context, table.meta(), i)?;
        }
    }
    Ok(())
}
