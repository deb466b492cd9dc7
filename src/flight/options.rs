//! Session options: the settings of SET by their names, and how rows are sent.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use arrow::ipc::CompressionType;

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
/// How the buffers of rows are compressed.
const COMPRESSION: &str = "compression";
const COMPRESSIONS: [(&str, Option<CompressionType>); 3] = [
    ("none", None),
    ("lz4", Some(CompressionType::LZ4_FRAME)),
    ("zstd", Some(CompressionType::ZSTD)),
];
/// Endpoints that the rows of a query are shared out to, at most.
const ENDPOINT_COUNT: &str = "endpoint_count";
const MAX_ENDPOINTS: usize = 256;

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
    match (name, value.as_deref()) {
        (NATIVE_TYPES, Some("true")) => session.native_types.store(true, Ordering::Relaxed),
        (NATIVE_TYPES, Some("false") | None) => {
            session.native_types.store(false, Ordering::Relaxed);
        }
        (NATIVE_TYPES, _) => return Err(ErrorValue::InvalidValue),
        (CATALOG_OPTION, None | Some(CATALOG)) => {}
        (CATALOG_OPTION, _) => return Err(ErrorValue::InvalidValue),
        (COMPRESSION, value) => {
            let wanted = value.unwrap_or("none");
            let known = COMPRESSIONS.iter().find(|(known, _)| wanted.eq_ignore_ascii_case(known));
            *session.compression.lock() = known.ok_or(ErrorValue::InvalidValue)?.1;
        }
        (ENDPOINT_COUNT, value) => {
            let count = value.unwrap_or("1").parse().ok();
            let count = count.filter(|n| (1..=MAX_ENDPOINTS).contains(n));
            session.endpoint_count.store(count.ok_or(ErrorValue::InvalidValue)?, Ordering::Relaxed);
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
    let compression = session.compression();
    let compression = COMPRESSIONS.iter().find(|(_, known)| *known == compression);
    options.extend(compression.map(|(name, _)| (COMPRESSION.to_owned(), text(name))));
    let endpoints = i64::try_from(session.endpoint_count()).unwrap_or(i64::MAX);
    options.insert(ENDPOINT_COUNT.to_owned(), OptionValue::Int64Value(endpoints));
    options.insert(CATALOG_OPTION.to_owned(), text(CATALOG));
    options.insert(SCHEMA_OPTION.to_owned(), text(&session.sql.current_schema()));
    options.insert(NATIVE_TYPES.to_owned(), OptionValue::BoolValue(session.native_types()));
    let options = options
        .into_iter()
        .map(|(name, value)| (name, SessionOptionValue { option_value: Some(value) }));
    GetSessionOptionsResult { session_options: options.collect() }
}
