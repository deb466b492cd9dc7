//! Session options: the settings of SET by their names, and how rows are sent.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::metadata::CATALOG;
use super::proto::session_option_value::OptionValue;
use super::proto::set_session_options_result::{Error, ErrorValue};
use super::proto::{
    GetSessionOptionsResult, SessionOptionValue, SetSessionOptionsRequest, SetSessionOptionsResult,
};
use super::session::Session;

/// Columns leave in the types that they have, views and dictionaries included.
const NATIVE_TYPES: &str = "native_types";
/// The names that the protocol gives to catalog and schema.
const CATALOG_OPTION: &str = "catalog";
const SCHEMA_OPTION: &str = "schema";
/// What the settings of SET call the schema.
const SEARCH_PATH: &str = "search_path";
/// Known, and with one value only: rows are sent uncompressed, and by one endpoint.
const FIXED: [(&str, &str); 2] = [("compression", "none"), ("endpoint_count", "1")];

/// Sets options; says which were refused, and whether for their name or their value.
pub(super) fn set(session: &Session, request: SetSessionOptionsRequest) -> SetSessionOptionsResult {
    let mut errors = HashMap::new();
    for (name, value) in request.session_options {
        if let Err(error) = set_one(session, &name, value.option_value) {
            tracing::debug!(option = %name, ?error, "a session option was refused");
            errors.insert(name, Error { value: error.into() });
        }
    }
    SetSessionOptionsResult { errors }
}

/// A value as SET would have it; none resets the option.
fn text(value: Option<OptionValue>) -> Result<Option<String>, ErrorValue> {
    match value {
        None => Ok(None),
        Some(OptionValue::StringValue(text)) => Ok(Some(text)),
        Some(OptionValue::BoolValue(on)) => Ok(Some(on.to_string())),
        Some(OptionValue::Int64Value(n)) => Ok(Some(n.to_string())),
        Some(OptionValue::DoubleValue(_) | OptionValue::StringListValue(_)) => {
            Err(ErrorValue::InvalidValue)
        }
    }
}

fn set_one(session: &Session, name: &str, value: Option<OptionValue>) -> Result<(), ErrorValue> {
    let value = text(value)?;
    let fixed = FIXED.iter().find(|(option, _)| *option == name);
    match (name, value.as_deref()) {
        (NATIVE_TYPES, Some("true")) => session.native_types.store(true, Ordering::Relaxed),
        (NATIVE_TYPES, Some("false") | None) => {
            session.native_types.store(false, Ordering::Relaxed);
        }
        (NATIVE_TYPES, _) => return Err(ErrorValue::InvalidValue),
        (CATALOG_OPTION, None | Some(CATALOG)) => {}
        (CATALOG_OPTION, _) => return Err(ErrorValue::InvalidValue),
        (_, value) if let Some((_, only)) = fixed => {
            if value.is_some_and(|v| v != *only) {
                return Err(ErrorValue::InvalidValue);
            }
        }
        (name, value) => {
            let name = if name == SCHEMA_OPTION { SEARCH_PATH } else { name };
            if !session.sql.options().iter().any(|(known, _)| *known == name) {
                return Err(ErrorValue::InvalidName);
            }
            let result = match value {
                Some(value) => session.sql.set_option(name, value),
                None => session.sql.reset_option(name),
            };
            result.map_err(|_| ErrorValue::InvalidValue)?;
        }
    }
    Ok(())
}

/// All options with their values.
pub(super) fn get(session: &Session) -> GetSessionOptionsResult {
    let text = |text: &str| OptionValue::StringValue(text.to_owned());
    let mut options: HashMap<String, OptionValue> = session
        .sql
        .options()
        .iter()
        .map(|(name, value)| ((*name).to_owned(), text(value)))
        .collect();
    options.extend(FIXED.map(|(name, value)| (name.to_owned(), text(value))));
    options.insert(CATALOG_OPTION.to_owned(), text(CATALOG));
    options.insert(SCHEMA_OPTION.to_owned(), text(&session.sql.current_schema()));
    options.insert(NATIVE_TYPES.to_owned(), OptionValue::BoolValue(session.native_types()));
    let options = options
        .into_iter()
        .map(|(name, value)| (name, SessionOptionValue { option_value: Some(value) }));
    GetSessionOptionsResult { session_options: options.collect() }
}
