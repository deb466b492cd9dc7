//! The fast path: statements that ask for a key range of one table are answered straight from the engine, without
//! DataFusion's planner.
//!
//! It recognises `SELECT columns FROM table [WHERE conditions on the key] [ORDER BY key] [LIMIT n] [OFFSET m]`
//! and the same with `COUNT(*)`; everything else is left to DataFusion. Its answers, names, types and
//! nullability included, are DataFusion's: a property test compares the two.

use std::sync::{Arc, LazyLock};

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use super::context::{Description, StatementContext, fold};
use super::definitions::Definitions;
use super::error::{Error, Result};
use super::key_filter::{KeyColumns, ValueSet, compare};
use super::memory::Memory;
use super::queries::{Query, RunningQuery};
use super::reader::{ReadStream, Reader};
use super::scan_exec::{check_part, intersect, key_parts};
use super::semantics::literals;
use super::semantics::time::cast::{Unfit, cast_time};
use super::workers::caught;
use super::{Rows, parameters, query};
use crate::engine::{KeyKind, KeyRange, Snapshot, TableMeta, TableSnapshot, in_memory};

/// Rows that are read at once, before the first of them is asked for.
const FEW_ROWS: u64 = 1024;
/// Ranges that are looked up on the thread that serves the call, at most: a long list of keys would hold up its other calls.
const FEW_RANGES: usize = 64;

/// A value that a statement compares with or limits by.
#[derive(Debug, Clone)]
enum Operand {
    Literal(ScalarValue),
    /// A parameter, counted from 0.
    Parameter(usize),
}

/// `column op operand`, for one key column; several operands mean any of them.
#[derive(Debug, Clone)]
struct Condition {
    /// Position among the key columns.
    column: usize,
    op: Operator,
    operands: Vec<Operand>,
}

/// A recognised statement.
#[derive(Debug)]
pub(crate) struct KeyStatement {
    /// The definition of the table that it was recognised on: under another one it is planned anew.
    meta: Arc<TableMeta>,
    /// Columns by position; `None` counts rows.
    projection: Option<Vec<usize>>,
    conditions: Vec<Condition>,
    reverse: bool,
    limit: Option<Operand>,
    offset: Option<Operand>,
    description: Description,
}

/// A query of nothing but a column and a table: what is left of a recognised one without its parts.
static PLAIN: LazyLock<Option<ast::Query>> = LazyLock::new(|| {
    let mut statements = Parser::parse_sql(&GenericDialect, "SELECT a FROM b").ok()?;
    match statements.pop()? {
        ast::Statement::Query(query) => Some(*query),
        _ => None,
    }
});

impl KeyStatement {
    /// Recognises a statement; `None` leaves it to DataFusion.
    pub(crate) fn recognise(
        context: &StatementContext,
        snapshot: &Snapshot,
        statement: &ast::Statement,
    ) -> Option<Self> {
        let ast::Statement::Query(query) = statement else { return None };
        let ast::SetExpr::Select(select) = query.body.as_ref() else { return None };
        let (name, alias) = plain_table(query, select)?;
        let table = snapshot.table(&context.table_name(name).ok()?)?;
        let names = Names::new(&table, alias);
        let mut statement = Self {
            meta: Arc::clone(table.meta()),
            projection: None,
            conditions: Vec::new(),
            reverse: false,
            limit: None,
            offset: None,
            description: Description::default(),
        };
        let mut types = Types { known: Vec::new(), utc: context.settings.zone().is_utc() };
        if let Some(selection) = &select.selection {
            names.conditions(selection, &mut statement.conditions, &mut types)?;
        }
        if !covers(&table, &statement.conditions) {
            return None;
        }
        let (schema, projection) = names.output(&select.projection)?;
        statement.limits(query, &mut types)?;
        if let Some(order_by) = &query.order_by {
            statement.reverse = names.direction(order_by, &schema, projection.as_deref())?;
        }
        if projection.is_none() && (query.order_by.is_some() || query.limit_clause.is_some()) {
            return None;
        }
        statement.projection = projection;
        statement.description = Description { schema, parameters: types.schema()? };
        Some(statement)
    }

    /// What it returns and takes.
    pub(crate) fn description(&self) -> &Description {
        &self.description
    }

    /// What it was recognised on.
    pub(crate) fn definitions(&self) -> Definitions {
        let mut definitions = Definitions::default();
        definitions.add_table(&self.meta);
        definitions
    }

    /// The table in `snapshot`, where its definition is the very same: two transactions may each make another
    /// definition of the same version.
    fn table(&self, snapshot: &Snapshot) -> Option<TableSnapshot> {
        let table = snapshot.table(&self.meta.name)?;
        Arc::ptr_eq(table.meta(), &self.meta).then_some(table)
    }

    fn limits(&mut self, query: &ast::Query, types: &mut Types) -> Option<()> {
        let Some(clause) = &query.limit_clause else { return Some(()) };
        let ast::LimitClause::LimitOffset { limit, offset, limit_by } = clause else { return None };
        if !limit_by.is_empty() {
            return None;
        }
        if let Some(limit) = limit {
            self.limit = Some(types.operand(limit, &DataType::Int64)?);
        }
        if let Some(offset) = offset {
            self.offset = Some(types.operand(&offset.value, &DataType::Int64)?);
        }
        Some(())
    }

    /// Runs it on `snapshot`, for every row of `values`; `None` where the table is not what it was recognised
    /// on, or a value is one that DataFusion must judge. A few rows are there when this returns: a point read is one visit of
    /// another thread, and its rows leave with the head of the response. What takes longer is listed, by `begin`.
    pub(crate) async fn run(
        &self,
        context: &StatementContext,
        snapshot: &Snapshot,
        values: Option<&RecordBatch>,
        part: Option<&KeyRange>,
        begin: impl FnOnce() -> RunningQuery,
    ) -> Result<Option<Rows>> {
        let Some(table) = self.table(snapshot) else { return Ok(None) };
        let mut requests = Vec::new();
        let zone = context.settings.zone();
        for binding in parameters::bindings(&self.description.parameters, values, &zone)? {
            match self.request(&table, &binding, zone.is_utc())? {
                Some(request) => requests.push(request),
                None => return Ok(None),
            }
        }
        if let Some(part) = part {
            check_part(&table, part)?;
            for request in &mut requests {
                request.ranges = intersect(&request.ranges, part);
            }
        }
        let whole = |request: &Request| request.offset == 0 && request.limit.is_none();
        if self.projection.is_some() && requests.len() > 1 && requests.iter().all(whole) {
            // The keys of all bindings are looked up together.
            let ranges = requests.into_iter().flat_map(|request| request.ranges).collect();
            requests = vec![Request { ranges, offset: 0, limit: None }];
        }
        let work = Work {
            table,
            requests,
            schema: Arc::clone(&self.description.schema),
            projection: self.projection.clone(),
            reverse: self.reverse,
        };
        // Most point reads find all they need in memory, and cost no visit of another thread.
        let ranges: usize = work.requests.iter().map(|r| r.ranges.len()).sum();
        let few = match ranges <= FEW_RANGES {
            true => in_memory(|| caught(|| work.few())).transpose()?,
            false => None,
        };
        if let Some(Some(rows)) = few {
            return Ok(Some(rows));
        }
        let running = begin();
        let query = Arc::clone(running.query());
        let runtime = context.database.runtime();
        let database = context.database.clone();
        let memory = database.memory().clone();
        let read = async move {
            // Not a place among statements: long ones must not hold up what is short, and a longer result holds nothing but
            // its next rows.
            let place = database.admission().short.enter().await?;
            let read = move || {
                let _place = place;
                // Many rows, as is known already where they were counted.
                let rows = if few.is_none() { work.few()? } else { None };
                rows.map_or_else(|| work.stream(&query, &memory, runtime), Ok)
            };
            database.workers().run(read).await
        };
        let rows = running.wait(read).await?;
        let stream = running.rows(query::guarded(rows.stream).boxed());
        Ok(Some(Rows { schema: rows.schema, stream }))
    }

    /// Cuts the keys into parts of about as many rows of the answer; just one where the answer is no plain reading of
    /// rows. `None` leaves it to DataFusion, as [`KeyStatement::run`] does.
    pub(crate) fn split(
        &self,
        context: &StatementContext,
        snapshot: &Snapshot,
        values: Option<&RecordBatch>,
        count: usize,
    ) -> Result<Option<Vec<KeyRange>>> {
        let Some(table) = self.table(snapshot) else { return Ok(None) };
        let zone = context.settings.zone();
        let bindings = parameters::bindings(&self.description.parameters, values, &zone)?;
        let ([binding], Some(_), None, None) =
            (bindings.as_slice(), &self.projection, &self.limit, &self.offset)
        else {
            return Ok(Some(vec![KeyRange::all()]));
        };
        let Some(mut request) = self.request(&table, binding, zone.is_utc())? else {
            return Ok(None);
        };
        if self.reverse {
            request.ranges.reverse();
        }
        Ok(Some(key_parts(&table, &request.ranges, count, self.reverse)?))
    }

    /// What to read for one binding. `utc` says whether a time without a zone is one in UTC.
    fn request(
        &self,
        table: &TableSnapshot,
        binding: &[ScalarValue],
        utc: bool,
    ) -> Result<Option<Request>> {
        let meta = table.meta();
        let columns = KeyColumns::new(meta);
        let mut sets = vec![ValueSet::all(); columns.types().len()];
        for condition in &self.conditions {
            let data_type = columns.types()[condition.column];
            let mut any = ValueSet::none();
            for operand in &condition.operands {
                let value = operand.value(binding);
                if value.is_null() {
                    // A comparison with NULL passes no row.
                    continue;
                }
                if !utc && is_zoned(data_type) != is_zoned(&value.data_type()) {
                    return Ok(None);
                }
                match compare(data_type, condition.op, value) {
                    Some(set) => any = any.union(set),
                    None => return Ok(None),
                }
            }
            sets[condition.column] = sets[condition.column].intersect(&any);
        }
        let (mut ranges, covered, _) = columns.ranges(table.codec(), &sets)?;
        if covered < sets.len() && self.conditions.iter().any(|c| c.column >= covered) {
            return Ok(None);
        }
        if self.reverse {
            ranges.reverse();
        }
        let rows = |operand: &Option<Operand>| match operand.as_ref().map(|o| o.value(binding)) {
            None => Some(None),
            Some(value) if value.is_null() => Some(None),
            Some(value) if value.data_type().is_integer() => {
                match value.cast_to(&DataType::UInt64) {
                    Ok(ScalarValue::UInt64(Some(n))) => Some(Some(n)),
                    _ => None,
                }
            }
            Some(_) => None,
        };
        let (Some(limit), Some(offset)) = (rows(&self.limit), rows(&self.offset)) else {
            return Ok(None);
        };
        Ok(Some(Request { ranges, offset: offset.unwrap_or(0), limit }))
    }
}

fn is_zoned(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, Some(_)))
}

/// What to read for one binding.
struct Request {
    ranges: Vec<KeyRange>,
    offset: u64,
    limit: Option<u64>,
}

/// A statement with its values, ready to run.
struct Work {
    table: TableSnapshot,
    requests: Vec<Request>,
    schema: SchemaRef,
    projection: Option<Vec<usize>>,
    reverse: bool,
}

impl Work {
    /// The whole answer, if that is short.
    fn few(&self) -> Result<Option<Rows>> {
        let Some(projection) = &self.projection else { return self.counts().map(Some) };
        let mut rows = 0;
        for request in &self.requests {
            rows += self.table.count_all(&request.ranges)?;
            if rows > FEW_ROWS {
                return Ok(None);
            }
        }
        let mut batches = Vec::new();
        for Request { ranges, offset, limit } in &self.requests {
            let reader = self.reader(projection.clone());
            let mut reading = reader.read(ranges.as_slice(), *offset, *limit)?;
            while let Some(batch) = reading.next()? {
                batches.push(Ok(batch));
            }
        }
        Ok(Some(self.rows(batches)))
    }

    /// The number of rows of each request.
    fn counts(&self) -> Result<Rows> {
        let mut counts = Vec::with_capacity(self.requests.len());
        for request in &self.requests {
            let rows = self.table.count_all(&request.ranges)?;
            let rows = i64::try_from(rows);
            counts.push(rows.map_err(|_| Error::data("the count does not fit BIGINT"))?);
        }
        let column = Arc::new(Int64Array::from(counts));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![column])?;
        Ok(self.rows(vec![Ok(batch)]))
    }

    fn rows(&self, batches: Vec<Result<RecordBatch>>) -> Rows {
        Rows { schema: Arc::clone(&self.schema), stream: stream::iter(batches).boxed() }
    }

    fn reader(&self, projection: Vec<usize>) -> Reader {
        Reader::new(self.table.clone(), Arc::clone(&self.schema), projection, self.reverse)
    }

    /// Rows as they are asked for.
    fn stream(self, query: &Arc<Query>, memory: &Memory, runtime: Handle) -> Result<Rows> {
        for request in &self.requests {
            let rows = self.table.count_all(&request.ranges)?.saturating_sub(request.offset);
            query.will_read(request.limit.map_or(rows, |limit| rows.min(limit)));
        }
        let projection = self.projection.clone().unwrap_or_default();
        let mut readings = Vec::with_capacity(self.requests.len());
        for Request { ranges, offset, limit } in self.requests.iter() {
            let mut reader = self.reader(projection.clone());
            reader.query = Some(Arc::clone(query));
            reader.sharer = Some(memory.results.join());
            readings.push(reader.read(ranges.clone(), *offset, *limit)?);
        }
        let stream = ReadStream::new(runtime, readings).map_err(Error::from);
        Ok(Rows { schema: self.schema, stream: stream.boxed() })
    }
}

impl Operand {
    fn value<'a>(&'a self, binding: &'a [ScalarValue]) -> &'a ScalarValue {
        match self {
            Self::Literal(value) => value,
            Self::Parameter(index) => &binding[*index],
        }
    }
}

/// Whether the conditions can be told by key ranges, as far as the statement alone says.
fn covers(table: &TableSnapshot, conditions: &[Condition]) -> bool {
    if conditions.is_empty() {
        return true;
    }
    // Before the last column that has conditions, all are bound to a single value.
    let last = conditions.iter().map(|c| c.column).max().unwrap_or(0);
    table.meta().key_kind != KeyKind::RowId
        && (0..last).all(|column| {
            conditions
                .iter()
                .any(|c| c.column == column && c.op == Operator::Eq && c.operands.len() == 1)
        })
}

/// The table of a query that has no clauses but those that are recognised.
fn plain_table<'a>(
    query: &'a ast::Query,
    select: &'a ast::Select,
) -> Option<(&'a ast::ObjectName, Option<&'a ast::Ident>)> {
    let [ast::TableWithJoins { relation, joins }] = select.from.as_slice() else { return None };
    let ast::TableFactor::Table { name, alias, args: None, .. } = relation else { return None };
    if !joins.is_empty() || alias.as_ref().is_some_and(|a| !a.columns.is_empty() || a.at.is_some())
    {
        return None;
    }
    let plain = PLAIN.as_ref()?;
    let ast::SetExpr::Select(plain_select) = plain.body.as_ref() else { return None };
    let mut rest = ast::Query {
        body: Box::new(ast::SetExpr::Select(plain_select.clone())),
        order_by: None,
        limit_clause: None,
        ..query.clone()
    };
    let mut rest_select = select.clone();
    rest_select.projection = plain_select.projection.clone();
    rest_select.selection = None;
    if let (
        Some(ast::TableWithJoins { relation: ast::TableFactor::Table { name, alias, .. }, .. }),
        Some(ast::TableWithJoins {
            relation: ast::TableFactor::Table { name: plain_name, .. },
            ..
        }),
    ) = (rest_select.from.first_mut(), plain_select.from.first())
    {
        *name = plain_name.clone();
        *alias = None;
    }
    if rest_select != **plain_select {
        return None;
    }
    rest.body = plain.body.clone();
    (rest == *plain).then_some((name, alias.as_ref().map(|a| &a.name)))
}

/// Types of the parameters seen so far.
struct Types {
    known: Vec<Option<DataType>>,
    /// Whether text is a time in UTC.
    utc: bool,
}

impl Types {
    /// A literal or parameter to be compared with a value of `data_type`.
    fn operand(&mut self, expr: &ast::Expr, data_type: &DataType) -> Option<Operand> {
        // Text in another zone is left to the planner.
        if !self.utc && matches!(data_type, DataType::Timestamp(_, Some(_))) {
            match expr {
                ast::Expr::Value(value) if matches!(value.value, ast::Value::Placeholder(_)) => {}
                _ => return None,
            }
        }
        match expr {
            ast::Expr::Value(value) => match &value.value {
                ast::Value::Placeholder(name) => self.parameter(name, data_type),
                value => Some(Operand::Literal(literal(value, false, data_type)?)),
            },
            ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match expr.as_ref() {
                ast::Expr::Value(value) => {
                    Some(Operand::Literal(literal(&value.value, true, data_type)?))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn parameter(&mut self, name: &str, data_type: &DataType) -> Option<Operand> {
        let number: usize = name.strip_prefix('$')?.parse().ok()?;
        let index = number.checked_sub(1)?;
        if self.known.len() <= index {
            self.known.resize(index + 1, None);
        }
        match &self.known[index] {
            Some(known) if known != data_type => return None,
            _ => self.known[index] = Some(data_type.clone()),
        }
        Some(Operand::Parameter(index))
    }

    /// A field for each parameter; `None` where one is missing.
    fn schema(self) -> Option<SchemaRef> {
        let fields: Option<Vec<Field>> = self
            .known
            .into_iter()
            .enumerate()
            .map(|(i, t)| Some(Field::new(format!("${}", i + 1), t?, true)))
            .collect();
        Some(Arc::new(Schema::new(fields?)))
    }
}

/// A literal as DataFusion's planner reads it beside a value of `data_type`.
fn literal(value: &ast::Value, negative: bool, data_type: &DataType) -> Option<ScalarValue> {
    match value {
        ast::Value::Number(text, false) => {
            let numeric = data_type.is_numeric();
            let text = if negative { format!("-{text}") } else { text.to_string() };
            let value = if let Ok(n) = text.parse::<i64>() {
                ScalarValue::Int64(Some(n))
            } else if let Ok(n) = text.parse::<u64>() {
                ScalarValue::UInt64(Some(n))
            } else {
                literals::fraction(&text)?
            };
            // Large integers beside smaller types may be refused or rounded: the planner says.
            let fits = !matches!(value, ScalarValue::UInt64(_)) || *data_type == DataType::UInt64;
            (numeric && fits).then_some(value)
        }
        ast::Value::SingleQuotedString(text) if !negative => {
            let value = ScalarValue::Utf8(Some(text.clone()));
            match data_type {
                DataType::Utf8 => Some(value),
                DataType::Date32 | DataType::Timestamp(..) | DataType::Time64(_) => {
                    moment(&value, data_type)
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// A text as the planner reads it beside a date or time: with microseconds at least, whatever the column holds. `None` where it
/// cannot be read so: the planner says why.
fn moment(value: &ScalarValue, beside: &DataType) -> Option<ScalarValue> {
    let to = match beside {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => beside.clone(),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        other => other.clone(),
    };
    let read = cast_time(&value.to_array().ok()?, &to, Unfit::IsNull).ok()?;
    ScalarValue::try_from_array(&read, 0).ok().filter(|v| !v.is_null())
}

/// The names that a statement can use.
struct Names<'a> {
    table: &'a TableSnapshot,
    qualifier: String,
    key: KeyColumns<'a>,
}

impl<'a> Names<'a> {
    fn new(table: &'a TableSnapshot, alias: Option<&ast::Ident>) -> Self {
        let meta = table.meta();
        let qualifier = alias.map_or_else(|| meta.name.name.to_string(), fold);
        Self { qualifier, key: KeyColumns::new(meta), table }
    }

    /// The column's name that an expression is.
    fn column(&self, expr: &ast::Expr) -> Option<String> {
        match expr {
            ast::Expr::Identifier(ident) => Some(fold(ident)),
            ast::Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [table, column] if fold(table) == self.qualifier => Some(fold(column)),
                _ => None,
            },
            _ => None,
        }
    }

    fn key_column(&self, expr: &ast::Expr) -> Option<(usize, &'a DataType)> {
        let name = self.column(expr)?;
        let position = self.key.position(&name)?;
        Some((position, self.key.types()[position]))
    }

    /// Conditions joined by AND.
    fn conditions(
        &self,
        expr: &ast::Expr,
        out: &mut Vec<Condition>,
        types: &mut Types,
    ) -> Option<()> {
        match expr {
            ast::Expr::Nested(inner) => self.conditions(inner, out, types),
            ast::Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
                self.conditions(left, out, types)?;
                self.conditions(right, out, types)
            }
            ast::Expr::BinaryOp { left, op, right } => {
                let op = match op {
                    ast::BinaryOperator::Eq => Operator::Eq,
                    ast::BinaryOperator::Lt => Operator::Lt,
                    ast::BinaryOperator::LtEq => Operator::LtEq,
                    ast::BinaryOperator::Gt => Operator::Gt,
                    ast::BinaryOperator::GtEq => Operator::GtEq,
                    _ => return None,
                };
                let (column, op, value) = match self.key_column(left) {
                    Some(column) => (column, op, right),
                    None => (self.key_column(right)?, op.swap()?, left),
                };
                let operand = types.operand(value, column.1)?;
                out.push(Condition { column: column.0, op, operands: vec![operand] });
                Some(())
            }
            ast::Expr::Between { expr, negated: false, low, high } => {
                let (column, data_type) = self.key_column(expr)?;
                for (op, bound) in [(Operator::GtEq, low), (Operator::LtEq, high)] {
                    let operands = vec![types.operand(bound, data_type)?];
                    out.push(Condition { column, op, operands });
                }
                Some(())
            }
            ast::Expr::InList { expr, list, negated: false } => {
                let (column, data_type) = self.key_column(expr)?;
                let operands: Option<Vec<Operand>> =
                    list.iter().map(|item| types.operand(item, data_type)).collect();
                out.push(Condition { column, op: Operator::Eq, operands: operands? });
                Some(())
            }
            _ => None,
        }
    }

    /// The answer's schema and the columns it takes; none for COUNT(*).
    fn output(&self, items: &[ast::SelectItem]) -> Option<(SchemaRef, Option<Vec<usize>>)> {
        use ast::SelectItem as I;
        let meta = self.table.meta();
        if let [I::UnnamedExpr(expr) | I::ExprWithAlias { expr, .. }] = items
            && is_count(expr)
        {
            let name = match &items[0] {
                I::ExprWithAlias { alias, .. } => fold(alias),
                _ => "count".to_owned(),
            };
            return Some((
                Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, false)])),
                None,
            ));
        }
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        let mut add = |position: usize, name: Option<String>| {
            let field = &meta.columns[position].field;
            let name = name.unwrap_or_else(|| field.name().clone());
            fields.push(Field::new(name, field.data_type().clone(), field.is_nullable()));
            columns.push(position);
        };
        for item in items {
            match item {
                I::Wildcard(options) => {
                    if *options != ast::WildcardAdditionalOptions::default() {
                        return None;
                    }
                    (0..meta.columns.len()).for_each(|i| add(i, None));
                }
                I::UnnamedExpr(expr) => add(self.position(expr)?, None),
                I::ExprWithAlias { expr, alias } => add(self.position(expr)?, Some(fold(alias))),
                _ => return None,
            }
        }
        let mut sorted = columns.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let mut names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if sorted.len() != columns.len() || names.len() != fields.len() || columns.is_empty() {
            return None;
        }
        Some((Arc::new(Schema::new(fields)), Some(columns)))
    }

    fn position(&self, expr: &ast::Expr) -> Option<usize> {
        let name = self.column(expr)?;
        self.table.meta().columns.iter().position(|c| *c.field.name() == name)
    }

    /// Whether ORDER BY, which names the first key columns, is descending.
    fn direction(
        &self,
        order_by: &ast::OrderBy,
        schema: &Schema,
        projection: Option<&[usize]>,
    ) -> Option<bool> {
        let ast::OrderByKind::Expressions(expressions) = &order_by.kind else { return None };
        if order_by.interpolate.is_some() {
            return None;
        }
        let mut reverse = None;
        for (i, sort) in expressions.iter().enumerate() {
            let (position, _) = self.key_column(&sort.expr)?;
            let name = self.column(&sort.expr)?;
            // A name of the output comes first: it must be the same column.
            if let Ok(output) = schema.index_of(&name)
                && projection.is_none_or(|p| Some(p[output]) != self.position(&sort.expr))
            {
                return None;
            }
            let descending = sort.options.asc == Some(false);
            if position != i
                || sort.with_fill.is_some()
                || *reverse.get_or_insert(descending) != descending
            {
                return None;
            }
        }
        Some(reverse.unwrap_or(false))
    }
}

fn is_count(expr: &ast::Expr) -> bool {
    let ast::Expr::Function(function) = expr else { return false };
    let [ast::ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return false };
    let ast::FunctionArguments::List(list) = &function.args else { return false };
    name.value.eq_ignore_ascii_case("count")
        && !function.uses_odbc_syntax
        && function.parameters == ast::FunctionArguments::None
        && function.filter.is_none()
        && function.null_treatment.is_none()
        && function.over.is_none()
        && function.within_group.is_empty()
        && list.duplicate_treatment.is_none()
        && list.clauses.is_empty()
        && matches!(
            list.args.as_slice(),
            [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)]
        )
}

#[cfg(test)]
mod tests;
