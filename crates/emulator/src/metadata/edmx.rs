//! `GET /` and `GET /$metadata`.
//!
//! Promise: every type, set and operation that the document names is declared in it, so that a
//! client can build its classes from it. Activities derive from `activitypointer`, which declares what all of
//! them share: no document says so, and the classes that generators made of real documents show it. Annotations come
//! where they are asked for. Left out: actions whose parameters are complex types of their own.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::profile::Message;
use crate::schema::{Column, ColumnKind, Relationship, Schema, Table, TableId};
use crate::web::{Answer, Call};

/// What users and teams have in common.
const PRINCIPAL: &str = "<EntityType Name=\"principal\" BaseType=\"mscrm.crmbaseentity\" Abstract=\"true\"><Key><PropertyRef Name=\"ownerid\" /></Key><Property Name=\"ownerid\" Type=\"Edm.Guid\" Nullable=\"false\" /></EntityType>\n";

const FUNCTIONS: &str = "\
<ComplexType Name=\"WhoAmIResponse\"><Property Name=\"BusinessUnitId\" Type=\"Edm.Guid\" Nullable=\"false\" /><Property Name=\"UserId\" Type=\"Edm.Guid\" Nullable=\"false\" /><Property Name=\"OrganizationId\" Type=\"Edm.Guid\" Nullable=\"false\" /></ComplexType>
<ComplexType Name=\"RetrieveVersionResponse\"><Property Name=\"Version\" Type=\"Edm.String\" /></ComplexType>
<ComplexType Name=\"EntityRecordCountCollection\"><Property Name=\"Count\" Type=\"Edm.Int32\" Nullable=\"false\" /><Property Name=\"Keys\" Type=\"Collection(Edm.String)\" /><Property Name=\"Values\" Type=\"Collection(Edm.Int64)\" /></ComplexType>
<ComplexType Name=\"RetrieveTotalRecordCountResponse\"><Property Name=\"EntityRecordCountCollection\" Type=\"mscrm.EntityRecordCountCollection\" /></ComplexType>
<ComplexType Name=\"CreateMultipleResponse\"><Property Name=\"Ids\" Type=\"Collection(Edm.Guid)\" Nullable=\"false\" /></ComplexType>
<Function Name=\"WhoAmI\"><ReturnType Type=\"mscrm.WhoAmIResponse\" Nullable=\"false\" /></Function>
<Function Name=\"RetrieveVersion\"><ReturnType Type=\"mscrm.RetrieveVersionResponse\" Nullable=\"false\" /></Function>
<Function Name=\"RetrieveTotalRecordCount\"><Parameter Name=\"EntityNames\" Type=\"Collection(Edm.String)\" Nullable=\"false\" /><ReturnType Type=\"mscrm.RetrieveTotalRecordCountResponse\" Nullable=\"false\" /></Function>
";

/// Actions that are answered here, beside the bulk messages. Their real signatures were not found in any recording;
/// these are those of Microsoft's reference.
const ACTIONS: &str = "\
<ComplexType Name=\"AddToQueueResponse\"><Property Name=\"QueueItemId\" Type=\"Edm.Guid\" Nullable=\"false\" /></ComplexType>
<Action Name=\"CloseIncident\"><Parameter Name=\"IncidentResolution\" Type=\"mscrm.incidentresolution\" Nullable=\"false\" /><Parameter Name=\"Status\" Type=\"Edm.Int32\" Nullable=\"false\" /></Action>
<Action Name=\"Merge\"><Parameter Name=\"Target\" Type=\"mscrm.crmbaseentity\" Nullable=\"false\" /><Parameter Name=\"Subordinate\" Type=\"mscrm.crmbaseentity\" Nullable=\"false\" /><Parameter Name=\"UpdateContent\" Type=\"mscrm.crmbaseentity\" /><Parameter Name=\"PerformParentingChecks\" Type=\"Edm.Boolean\" Nullable=\"false\" /></Action>
<Action Name=\"RouteTo\"><Parameter Name=\"Target\" Type=\"mscrm.crmbaseentity\" Nullable=\"false\" /><Parameter Name=\"QueueItem\" Type=\"mscrm.queueitem\" Nullable=\"false\" /></Action>
<Action Name=\"PublishXml\"><Parameter Name=\"ParameterXml\" Type=\"Edm.String\" Nullable=\"false\" Unicode=\"false\" /></Action>
<Action Name=\"PublishAllXml\" />
<Action Name=\"AddToQueue\" IsBound=\"true\"><Parameter Name=\"entity\" Type=\"mscrm.queue\" Nullable=\"false\" /><Parameter Name=\"Target\" Type=\"mscrm.crmbaseentity\" Nullable=\"false\" /><Parameter Name=\"SourceQueue\" Type=\"mscrm.queue\" /><Parameter Name=\"QueueItemProperties\" Type=\"mscrm.queueitem\" /><ReturnType Type=\"mscrm.AddToQueueResponse\" Nullable=\"false\" /></Action>
<Action Name=\"RemoveFromQueue\" IsBound=\"true\"><Parameter Name=\"entity\" Type=\"mscrm.queueitem\" Nullable=\"false\" /></Action>
";

/// Actions that are called below the service root.
const UNBOUND_ACTIONS: &[&str] = &["CloseIncident", "Merge", "RouteTo", "PublishXml", "PublishAllXml"];

/// The type that an activity derives from, unless it is that itself.
fn base_activity<'s>(schema: &'s Schema, table: &Table) -> Option<&'s Table> {
    let pointer = schema.by_logical("activitypointer")?;
    (table.is_activity && table.id != pointer.id).then_some(pointer)
}

/// The bulk messages, bound to a set.
fn bulk_actions(table: &Table, out: &mut String) {
    let logical = &table.logical;
    for name in ["CreateMultiple", "UpdateMultiple", "UpsertMultiple"] {
        let answer = if name == "CreateMultiple" {
            "<ReturnType Type=\"mscrm.CreateMultipleResponse\" Nullable=\"false\" />"
        } else {
            ""
        };
        line(
            out,
            format_args!(
                "<Action Name=\"{name}\" IsBound=\"true\"><Parameter Name=\"entityset\" Type=\"Collection(mscrm.{logical})\" Nullable=\"false\" /><Parameter Name=\"Targets\" Type=\"Collection(mscrm.{logical})\" Nullable=\"false\" />{answer}</Action>"
            ),
        );
    }
}

/// The list of entity sets.
pub(crate) fn service_document(call: &Call<'_>, schema: &Schema) -> Answer {
    let sets: Vec<_> = schema
        .live_tables()
        .map(|table| serde_json::json!({ "name": table.set_name, "kind": "EntitySet", "url": table.set_name }))
        .collect();
    let body = serde_json::json!({ "@odata.context": format!("{}/$metadata", call.base), "value": sets });
    Answer::json(body.to_string().into_bytes()).with_work(Message::Metadata, 1)
}

/// The CSDL document; `annotations=true` adds which sets are change-tracked.
pub(crate) fn edmx(schema: &Schema, query: &str) -> Answer {
    let annotated = query.split('&').any(|pair| pair == "annotations=true");
    let mut out = String::with_capacity(1 << 20);
    out.push_str("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<edmx:Edmx Version=\"4.0\" xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\"><edmx:DataServices><Schema Namespace=\"Microsoft.Dynamics.CRM\" Alias=\"mscrm\" xmlns=\"http://docs.oasis-open.org/odata/ns/edm\">\n<EntityType Name=\"crmbaseentity\" Abstract=\"true\" />\n");
    out.push_str(PRINCIPAL);
    for table in schema.live_tables() {
        entity_type(schema, table, annotated, &mut out);
    }
    out.push_str(FUNCTIONS);
    out.push_str(ACTIONS);
    for table in schema.live_tables().filter(|table| table.bulk) {
        bulk_actions(table, &mut out);
    }
    out.push_str("<EntityContainer Name=\"System\">\n");
    for table in schema.live_tables() {
        entity_set(schema, table, annotated, &mut out);
    }
    for name in ["WhoAmI", "RetrieveVersion", "RetrieveTotalRecordCount"] {
        line(&mut out, format_args!("<FunctionImport Name=\"{name}\" Function=\"Microsoft.Dynamics.CRM.{name}\" />"));
    }
    for name in UNBOUND_ACTIONS {
        line(&mut out, format_args!("<ActionImport Name=\"{name}\" Action=\"Microsoft.Dynamics.CRM.{name}\" />"));
    }
    out.push_str("</EntityContainer>\n</Schema></edmx:DataServices></edmx:Edmx>\n");
    Answer::text("application/xml", out.into_bytes()).with_work(Message::Metadata, 1)
}

// Writing to a string cannot fail; the results are dropped by name.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _infallible = out.write_fmt(text);
    out.push('\n');
}

fn entity_set(schema: &Schema, table: &Table, annotated: bool, out: &mut String) {
    let (set, logical) = (&table.set_name, &table.logical);
    line(out, format_args!("<EntitySet Name=\"{set}\" EntityType=\"Microsoft.Dynamics.CRM.{logical}\">"));
    for (path, target) in bindings(schema, table) {
        line(out, format_args!("<NavigationPropertyBinding Path=\"{path}\" Target=\"{target}\" />"));
    }
    if annotated && table.change_tracking {
        out.push_str("<Annotation Term=\"Org.OData.Capabilities.V1.ChangeTracking\"><Record><PropertyValue Property=\"Supported\" Bool=\"true\" /></Record></Annotation>");
    }
    out.push_str("</EntitySet>\n");
}

/// The sets that a table's navigation properties lead to, by property.
fn bindings<'s>(schema: &'s Schema, table: &'s Table) -> BTreeMap<&'s str, &'s str> {
    let set = |id: TableId| schema.table(id).set_name.as_str();
    let mut bindings = BTreeMap::new();
    for column in table.live_columns().filter(|column| column.logical != "ownerid") {
        if let ColumnKind::Lookup { targets } = &column.kind {
            bindings.extend(targets.iter().map(|target| (target.navigation.as_str(), set(target.table))));
        }
    }
    for relationship in &schema.relationships {
        match relationship {
            Relationship::OneToMany(one) if one.referenced == table.id => {
                bindings.insert(&one.to_many, set(one.referencing));
            }
            Relationship::ManyToMany(many) => {
                for side in (0..2).filter(|side| many.tables[*side] == table.id) {
                    bindings.insert(&many.navigation[side], set(many.tables[1 - side]));
                }
            }
            Relationship::OneToMany(_) => {}
        }
    }
    bindings
}

fn entity_type(schema: &Schema, table: &Table, annotated: bool, out: &mut String) {
    let base = base_activity(schema, table);
    if let Some(base) = base {
        line(out, format_args!("<EntityType Name=\"{}\" BaseType=\"mscrm.{}\">", table.logical, base.logical));
    } else if table.is_principal {
        line(out, format_args!("<EntityType Name=\"{}\" BaseType=\"mscrm.principal\">", table.logical));
    } else {
        line(
            out,
            format_args!(
                "<EntityType Name=\"{}\" BaseType=\"mscrm.crmbaseentity\"><Key><PropertyRef Name=\"{}\" /></Key>",
                table.logical,
                table.primary_id()
            ),
        );
    }
    // What the base declares is not declared again.
    let is_own = |name: &str| base.is_none_or(|base| !base.properties.contains_key(name));
    for column in table.live_columns() {
        property(schema, table, column, (annotated, &is_own), out);
    }
    for relationship in &schema.relationships {
        match relationship {
            Relationship::OneToMany(one) if one.referenced == table.id && is_own(&one.to_many) => {
                let child = &schema.table(one.referencing).logical;
                line(
                    out,
                    format_args!(
                        "<NavigationProperty Name=\"{}\" Type=\"Collection(mscrm.{child})\" Partner=\"{}\" />",
                        one.to_many, one.to_one
                    ),
                );
            }
            Relationship::ManyToMany(many) => {
                for side in (0..2).filter(|side| many.tables[*side] == table.id) {
                    let other = &schema.table(many.tables[1 - side]).logical;
                    line(
                        out,
                        format_args!(
                            "<NavigationProperty Name=\"{}\" Type=\"Collection(mscrm.{other})\" />",
                            many.navigation[side]
                        ),
                    );
                }
            }
            Relationship::OneToMany(_) => {}
        }
    }
    out.push_str("</EntityType>\n");
}

/// Whether annotations are wanted, and whether a property's name is declared by the type itself.
type Declaring<'a> = (bool, &'a dyn Fn(&str) -> bool);

fn property(schema: &Schema, table: &Table, column: &Column, declaring: Declaring<'_>, out: &mut String) {
    let (annotated, is_own) = declaring;
    if column.kind.is_lookup() {
        if is_own(&column.wire) {
            let computed = if annotated {
                "><Annotation Term=\"Org.OData.Core.V1.Computed\" Bool=\"true\" /></Property>"
            } else {
                " />"
            };
            line(out, format_args!("<Property Name=\"{}\" Type=\"Edm.Guid\"{computed}", column.wire));
        }
        return navigations(schema, table, column, is_own, out);
    }
    if matches!(column.kind, ColumnKind::PartyList { .. }) || !is_own(&column.logical) {
        return;
    }
    let edm = column.kind.edm_type();
    let facets = if edm == "Edm.String" { " Unicode=\"false\"" } else { "" };
    line(out, format_args!("<Property Name=\"{}\" Type=\"{edm}\"{facets} />", column.logical));
}

/// The properties that lead to the rows a lookup may point at.
fn navigations(schema: &Schema, table: &Table, column: &Column, is_own: &dyn Fn(&str) -> bool, out: &mut String) {
    let ColumnKind::Lookup { targets } = &column.kind else { return };
    let is_owner = targets.len() > 1 && column.logical == "ownerid";
    let mut seen = Vec::new();
    for target in targets.iter().filter(|target| !schema.table(target.table).deleted) {
        if seen.contains(&&target.navigation) || !is_own(&target.navigation) {
            continue;
        }
        seen.push(&target.navigation);
        // The owner's one property leads to users and teams, whose common type is principal.
        let kind = if is_owner { "principal" } else { &schema.table(target.table).logical };
        let key = if is_owner { "ownerid" } else { schema.table(target.table).primary_id() };
        let mut relationships =
            schema.one_to_many().filter(|one| (one.referencing, one.column) == (table.id, column.ordinal));
        let partner = relationships.find(|one| one.to_one == target.navigation).filter(|_| !is_owner);
        let partner = partner.map(|one| format!(" Partner=\"{}\"", one.to_many)).unwrap_or_default();
        line(
            out,
            format_args!(
                "<NavigationProperty Name=\"{}\" Type=\"mscrm.{kind}\" Nullable=\"false\"{partner}><ReferentialConstraint Property=\"{}\" ReferencedProperty=\"{key}\" /></NavigationProperty>",
                target.navigation, column.wire
            ),
        );
    }
    if is_owner && table.is_activity && base_activity(schema, table).is_some() {
        line(
            out,
            format_args!(
                "<NavigationProperty Name=\"ownerid_{}\" Type=\"mscrm.principal\" Nullable=\"false\" />",
                table.logical
            ),
        );
    }
}
