//! Paths: which resource a request names, and which operation that makes it.

use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;

use super::{Access, Answer, Call, Request, bulk, links, rows, sets};
use crate::address::{parse_predicate, split_outside_quotes, split_segment};
use crate::error::{ApiError, Code};
use crate::schema::{Property, Schema, Table};

/// The segments of a path, decoded.
pub(super) fn segments(path: &str) -> Vec<String> {
    let parts = split_outside_quotes(path.trim_matches('/'), '/');
    parts.into_iter().map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
}

/// What fault rules and statistics call a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) name: String,
    /// The set name, or the empty string.
    pub(crate) set: String,
}

pub(crate) fn operation(method: &Method, path: &str) -> Operation {
    let segments = segments(path);
    let first = segments.first().map_or("", String::as_str);
    let (name, inner) = split_segment(first);
    let action = segments.iter().skip(1).find_map(|segment| segment.strip_prefix("Microsoft.Dynamics.CRM."));
    let of_set = |operation: &str| Operation { name: operation.to_owned(), set: name.to_owned() };
    if let Some(action) = action.filter(|_| name != "EntityDefinitions") {
        return of_set(split_segment(action).0);
    }
    match name {
        "$batch" => Operation { name: "Batch".to_owned(), set: String::new() },
        "" | "$metadata" | "EntityDefinitions" | "RelationshipDefinitions" | "GlobalOptionSetDefinitions" => {
            Operation { name: "Metadata".to_owned(), set: String::new() }
        }
        // Actions and functions begin with a capital; sets never do.
        _ if name.starts_with(|c: char| c.is_ascii_uppercase()) => {
            Operation { name: name.to_owned(), set: String::new() }
        }
        _ => of_set(match (method.as_str(), inner.is_some(), segments.len() > 1) {
            ("POST", false, _) => "Create",
            ("POST", true, _) => "Associate",
            ("PATCH", ..) => "Update",
            ("PUT", ..) => "Update",
            ("DELETE", _, true) => "Disassociate",
            ("DELETE", ..) => "Delete",
            (_, true, false) => "Retrieve",
            _ => "RetrieveMultiple",
        }),
    }
}

pub(super) fn method_not_allowed(request: &Request) -> ApiError {
    let message = format!("The requested resource does not support http method '{}'.", request.method);
    ApiError::new(Code::MethodNotAllowed, message)
}

/// Answers requests below a table's set.
pub(super) fn answer_table(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    table: &Arc<Table>,
    segments: &[String],
) -> Result<Answer, ApiError> {
    let (_, inner) = split_segment(&segments[0]);
    let rest: Vec<&str> = segments[1..].iter().map(String::as_str).collect();
    let Some(inner) = inner.filter(|inner| !inner.is_empty()) else {
        return answer_set(call, access, request, schema, table, &rest);
    };
    let address = parse_predicate(schema, table, inner)?;
    let row = rows::RowRequest { schema, table, address, inner };
    match rest.as_slice() {
        [] => match request.method.as_str() {
            "GET" => rows::retrieve(call, access, request, &row),
            "PATCH" => rows::patch(call, access, request, &row),
            "DELETE" => rows::delete_row(call, access, request, &row),
            _ => Err(method_not_allowed(request)),
        },
        [action] if action.starts_with("Microsoft.Dynamics.CRM.") => {
            super::actions::bound(call, access, request, &row, action)
        }
        [name, tail @ ..] => {
            let (property_name, key) = split_segment(name);
            match table.properties.get(property_name) {
                Some(Property::Column(ordinal)) => rows::property(call, access, request, &row, *ordinal, tail),
                Some(Property::LookupValue(ordinal)) if request.method == Method::GET => {
                    rows::property(call, access, request, &row, *ordinal, tail)
                }
                Some(property @ (Property::ToOne(..) | Property::ToMany(_))) => {
                    links::answer(call, access, request, &row, (property_name, *property), key, tail)
                }
                _ => Err(ApiError::no_resource(name)),
            }
        }
    }
}

fn answer_set(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Arc<Schema>,
    table: &Arc<Table>,
    rest: &[&str],
) -> Result<Answer, ApiError> {
    match (request.method.as_str(), rest) {
        ("GET", []) => sets::list(call, access, request, schema, table),
        ("GET", ["$count"]) => sets::count(call, access, request, schema, table),
        ("POST", []) => rows::create_row(call, access, request, schema, table),
        ("POST", [action]) if action.starts_with("Microsoft.Dynamics.CRM.") => {
            bulk::answer(call, access, request, schema, table, action)
        }
        (_, []) => Err(method_not_allowed(request)),
        (_, [other, ..]) => Err(ApiError::no_resource(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_names() {
        let of = |method: Method, path: &str| {
            let operation = operation(&method, path);
            (operation.name, operation.set)
        };
        assert_eq!(of(Method::POST, "accounts"), ("Create".into(), "accounts".into()));
        assert_eq!(of(Method::PATCH, "accounts(accountnumber='a/b')"), ("Update".into(), "accounts".into()));
        assert_eq!(
            of(Method::POST, "accounts/Microsoft.Dynamics.CRM.CreateMultiple"),
            ("CreateMultiple".into(), "accounts".into())
        );
        assert_eq!(of(Method::GET, "WhoAmI()"), ("WhoAmI".into(), String::new()));
        assert_eq!(of(Method::POST, "$batch"), ("Batch".into(), String::new()));
        let path = "EntityDefinitions(LogicalName='a')/Attributes/Microsoft.Dynamics.CRM.StringAttributeMetadata";
        assert_eq!(of(Method::GET, path).0, "Metadata");
    }
}
