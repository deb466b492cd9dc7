//! Settings of a session: what SET may change, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use datafusion::sql::sqlparser::ast::{self, Set, Statement as S};

use super::code::Code;
use super::context::fold;
use super::error::{Error, Result, nearest};
use super::semantics::time_zone::TimeZone;
use super::types::UTC;
use crate::engine::{DEFAULT_SCHEMA, Snapshot};

/// What a client has set for its session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    /// The schema that bare names mean.
    pub(crate) current_schema: Arc<str>,
    /// The time zone of text that becomes a TIMESTAMPTZ.
    pub(crate) time_zone: Arc<str>,
    /// Time that one statement may take.
    pub(crate) statement_timeout: Option<Duration>,
    /// What drivers set and read back; changes nothing.
    pub(crate) application_name: Arc<str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            current_schema: Arc::from(DEFAULT_SCHEMA),
            time_zone: Arc::from(UTC),
            statement_timeout: None,
            application_name: Arc::from(""),
        }
    }
}

/// Names and descriptions.
const SETTINGS: [(&str, &str); 4] = [
    ("application_name", "name that the client gives itself"),
    ("search_path", "schema that names without one mean"),
    ("statement_timeout", "milliseconds that one statement may take; 0 means no limit"),
    ("timezone", "time zone of text that becomes a TIMESTAMPTZ"),
];

impl Settings {
    /// The time zone.
    pub(crate) fn zone(&self) -> TimeZone {
        TimeZone::new(&self.time_zone)
    }

    /// Names, values and descriptions, sorted by name.
    pub(crate) fn list(&self) -> Vec<(&'static str, String, &'static str)> {
        SETTINGS
            .iter()
            .map(|(name, description)| {
                let value = match *name {
                    "application_name" => self.application_name.to_string(),
                    "search_path" => self.current_schema.to_string(),
                    "statement_timeout" => {
                        self.statement_timeout.map_or(0, |t| t.as_millis()).to_string()
                    }
                    _ => self.time_zone.to_string(),
                };
                (*name, value, *description)
            })
            .collect()
    }

    /// Carries out a SET, RESET or the like.
    pub(crate) fn apply(&mut self, statement: &ast::Statement, snapshot: &Snapshot) -> Result<()> {
        match statement {
            S::Set(Set::SingleAssignment { hivevar: false, variable, values, scope }) => {
                if matches!(scope, Some(ast::ContextModifier::Local)) {
                    return Err(Error::unsupported("SET LOCAL is not supported; use SET"));
                }
                let name: Vec<ast::Ident> =
                    variable.0.iter().filter_map(|p| p.as_ident().cloned()).collect();
                let [value] = values.as_slice() else {
                    return Err(Error::unsupported("SET takes one value"));
                };
                self.set(&self::name(&name), &value_text(value)?, snapshot)
            }
            S::Set(Set::SetTimeZone { value, .. }) => {
                self.set("timezone", &value_text(value)?, snapshot)
            }
            S::Reset(reset) => {
                match &reset.reset {
                    ast::Reset::ALL => *self = Self::default(),
                    ast::Reset::ConfigurationParameter(name) => {
                        let idents: Vec<ast::Ident> =
                            name.0.iter().filter_map(|p| p.as_ident().cloned()).collect();
                        self.reset(&self::name(&idents))?;
                    }
                }
                Ok(())
            }
            other => Err(Error::unsupported(format!("{other} is not supported"))),
        }
    }

    /// Gives one setting its default.
    pub(crate) fn reset(&mut self, name: &str) -> Result<()> {
        let default = Self::default();
        match canonical(name) {
            "application_name" => self.application_name = default.application_name,
            "search_path" => self.current_schema = default.current_schema,
            "statement_timeout" => self.statement_timeout = default.statement_timeout,
            "timezone" => self.time_zone = default.time_zone,
            other => return Err(unknown(other)),
        }
        Ok(())
    }

    /// Sets one setting from text.
    pub(crate) fn set(&mut self, name: &str, value: &str, snapshot: &Snapshot) -> Result<()> {
        match canonical(name) {
            "application_name" => self.application_name = Arc::from(value),
            "search_path" => {
                if !snapshot.schemas().iter().any(|s| **s == *value) {
                    let message = format!("schema \"{value}\" does not exist");
                    return Err(Error::new(Code::InvalidSchemaName, message));
                }
                self.current_schema = Arc::from(value);
            }
            "statement_timeout" => self.statement_timeout = timeout(value)?,
            "timezone" => self.set_time_zone(value)?,
            other => return Err(unknown(other)),
        }
        Ok(())
    }

    /// Sets the time zone.
    fn set_time_zone(&mut self, value: &str) -> Result<()> {
        let utc = ["utc", "etc/utc", "z", "+00", "+0000", "+00:00"];
        let utc = utc.iter().any(|name| value.eq_ignore_ascii_case(name));
        let zone = if utc { UTC } else { value };
        zone.parse::<arrow::array::timezone::Tz>()
            .map_err(|_| Error::data(format!("\"{value}\" is not a time zone")))?;
        self.time_zone = Arc::from(zone);
        Ok(())
    }
}

fn timeout(value: &str) -> Result<Option<Duration>> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let factor = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(Error::data(format!("\"{value}\" is not a time such as 5000 or 5s"))),
    };
    let millis = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| Error::data(format!("\"{value}\" is not a time such as 5000 or 5s")))?;
    Ok((millis > 0).then(|| Duration::from_millis(millis)))
}

fn value_text(value: &ast::Expr) -> Result<String> {
    match value {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(n, _) => Ok(n.to_string()),
            other => other
                .clone()
                .into_string()
                .ok_or_else(|| Error::data(format!("SET takes text or a number, not {other}"))),
        },
        ast::Expr::Identifier(ident) => Ok(fold(ident)),
        other => Err(Error::data(format!("SET takes text or a number, not {other}"))),
    }
}

/// A setting's name as it is looked up.
pub(crate) fn name(idents: &[ast::Ident]) -> String {
    let joined: Vec<String> = idents.iter().map(fold).collect();
    canonical(&joined.join(".")).to_owned()
}

fn canonical(name: &str) -> &str {
    match name {
        "time zone" | "time.zone" | "time_zone" | "datafusion.execution.time_zone" => "timezone",
        "schema" | "current_schema" => "search_path",
        other => other,
    }
}

/// Checks that there is a setting of that name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if SETTINGS.iter().any(|(n, _)| *n == name) { Ok(()) } else { Err(unknown(name)) }
}

fn unknown(name: &str) -> Error {
    let names = SETTINGS.iter().map(|(n, _)| *n);
    let mut message = format!("the setting \"{name}\" does not exist or may not be changed");
    match nearest(name, names.clone()) {
        Some(near) => message.push_str(&format!("; did you mean {near}?")),
        None => message
            .push_str(&format!("; the settings are {}", names.collect::<Vec<_>>().join(", "))),
    }
    Error::new(Code::UndefinedObject, message)
}
