//! From definitions on the wire to the shape a load works with. Pure.

use std::collections::BTreeMap;

use flowgate_core::shape::{ChoiceOption, ColumnKind, ColumnShape, LookupTarget, StatusShape, TableKey, TableShape};

use super::wire::{AttributeWire, EntityWire, KeyWire, OptionWire, RelationshipWire};

/// Columns the service requires and fills by itself when a create leaves them out.
const FILLED_BY_SERVICE: [&str; 5] =
    ["ownerid", "owningbusinessunit", "statecode", "statuscode", "transactioncurrencyid"];

/// Ranges of columns whose definition names none.
const INTEGER_MIN: f64 = i32::MIN as f64;
const INTEGER_MAX: f64 = i32::MAX as f64;
const DECIMAL_MAX: f64 = 100_000_000_000.0;
const MONEY_MAX: f64 = 922_337_203_685_477.0;

/// The longest scale the service has, and a bound on what is believed.
const SCALE_MAX: u8 = 10;

/// The column that says whose a row is.
const OWNER: &str = "ownerid";

/// The column that gives a new row the moment of its creation elsewhere.
const CREATED_ELSEWHERE: &str = "overriddencreatedon";

/// Everything that was read about one table.
pub(crate) struct Definitions {
    pub(crate) entity: EntityWire,
    /// Common properties of every column.
    pub(crate) attributes: Vec<AttributeWire>,
    /// The same columns from typed casts, by name.
    pub(crate) details: BTreeMap<String, AttributeWire>,
    pub(crate) keys: Vec<KeyWire>,
    pub(crate) relationships: Vec<RelationshipWire>,
    /// Set names of all tables, by logical name.
    pub(crate) sets: BTreeMap<String, String>,
    /// Several users create rows.
    pub(crate) needs_owner: bool,
}

/// Whether a new row can bring the column: the owner of tables of the organisation cannot be said.
fn can_be_created(attribute: &AttributeWire) -> bool {
    attribute.is_valid_for_create != Some(false)
}

fn name_of(attribute: &AttributeWire) -> String {
    attribute.logical_name.clone()
}

impl Definitions {
    pub(crate) fn shape(&self) -> TableShape {
        let columns = self.attributes.iter().filter(|attribute| attribute.attribute_of.is_none());
        TableShape {
            table: self.entity.logical_name.clone(),
            set: self.entity.entity_set_name.clone().unwrap_or_default(),
            primary_id: self.entity.primary_id_attribute.clone().unwrap_or_default(),
            columns: columns.map(|attribute| (attribute.logical_name.clone(), self.column(attribute))).collect(),
            keys: self.keys.iter().map(key).collect(),
            atomic: !self.is_elastic(),
            owner: self.column_named(OWNER).filter(|owner| self.needs_owner && can_be_created(owner)).map(name_of),
            created_on: self.column_named(CREATED_ELSEWHERE).map(name_of),
            statuses: self.statuses(),
        }
    }

    fn column_named(&self, name: &str) -> Option<&AttributeWire> {
        self.attributes.iter().find(|attribute| attribute.logical_name == name)
    }

    pub(crate) fn is_elastic(&self) -> bool {
        self.entity.table_type.as_deref() == Some("Elastic")
    }

    fn column(&self, common: &AttributeWire) -> ColumnShape {
        let detail = self.details.get(&common.logical_name).unwrap_or(common);
        ColumnShape {
            name: common.logical_name.clone(),
            kind: self.kind(common, detail),
            required: self.is_required(common, detail),
            can_create: common.is_valid_for_create.unwrap_or(true),
            can_update: common.is_valid_for_update.unwrap_or(true),
        }
    }

    /// Whether the API refuses a row without it: not what only forms ask for, nor what the service
    /// fills by itself.
    fn is_required(&self, common: &AttributeWire, detail: &AttributeWire) -> bool {
        let level = common.required_level.as_ref().map(|level| level.value.as_str());
        let is_primary_id = self.entity.primary_id_attribute.as_deref() == Some(&common.logical_name);
        let is_numbered = detail.auto_number_format.as_deref().is_some_and(|format| !format.is_empty());
        // Two-option columns and choices take their default.
        let has_default = matches!(type_name(common), "Boolean" | "Picklist");
        level == Some("SystemRequired")
            && common.is_valid_for_create != Some(false)
            && !has_default
            && !is_primary_id
            && !is_numbered
            && !FILLED_BY_SERVICE.contains(&common.logical_name.as_str())
    }

    fn kind(&self, common: &AttributeWire, detail: &AttributeWire) -> ColumnKind {
        let scale = |default: u8| detail.precision.unwrap_or(default).min(SCALE_MAX);
        let range = |bound: f64| (detail.min_value.unwrap_or(-bound), detail.max_value.unwrap_or(bound));
        match type_name(common) {
            "String" | "Memo" => ColumnKind::Text { length_max: detail.max_length.unwrap_or(u32::MAX) },
            "Integer" => ColumnKind::Integer {
                min: detail.min_value.unwrap_or(INTEGER_MIN) as i32,
                max: detail.max_value.unwrap_or(INTEGER_MAX) as i32,
            },
            "BigInt" => ColumnKind::BigInteger,
            "Decimal" => {
                let (min, max) = range(DECIMAL_MAX);
                ColumnKind::Decimal { scale: scale(2) as i8, min, max }
            }
            "Money" => {
                let (min, max) = range(MONEY_MAX);
                ColumnKind::Money { scale: scale(2) as i8, min, max }
            }
            "Double" => {
                let (min, max) = range(DECIMAL_MAX);
                ColumnKind::Double { precision: scale(2), min, max }
            }
            "Boolean" => ColumnKind::Boolean { labels: boolean_labels(detail) },
            "DateTime" => match detail.date_time_behavior.as_ref().map(|behavior| behavior.value.as_str()) {
                Some("DateOnly") => ColumnKind::Date,
                Some("TimeZoneIndependent") => ColumnKind::DateTime { user_local: false },
                _ => ColumnKind::DateTime { user_local: true },
            },
            "Picklist" | "State" | "Status" => ColumnKind::Choice { options: choice_options(detail) },
            "MultiSelectPicklist" => ColumnKind::Choices { options: choice_options(detail) },
            "Uniqueidentifier" => ColumnKind::Guid,
            "Lookup" | "Customer" | "Owner" => ColumnKind::Lookup { targets: self.targets(common, detail) },
            other => ColumnKind::Unsupported { name: other.to_owned() },
        }
    }

    /// The tables a lookup refers to, in the order of its definition.
    fn targets(&self, common: &AttributeWire, detail: &AttributeWire) -> Vec<LookupTarget> {
        let navigations = || {
            let ours = |relationship: &&RelationshipWire| relationship.referencing_attribute == common.logical_name;
            self.relationships.iter().filter(ours)
        };
        let is_owner = type_name(common) == "Owner";
        let names = match &detail.targets {
            Some(targets) if !targets.is_empty() => targets.clone(),
            _ if is_owner => vec!["systemuser".to_owned(), "team".to_owned()],
            _ => navigations().map(|relationship| relationship.referenced_entity.clone()).collect(),
        };
        let target = |table: String| {
            let set = self.sets.get(&table)?.clone();
            // An owner has one navigation property for users and teams, named like the column.
            let navigation = match navigations().find(|relationship| relationship.referenced_entity == table) {
                Some(relationship) => relationship.referencing_entity_navigation_property_name.clone()?,
                None if is_owner => common.logical_name.clone(),
                None => return None,
            };
            Some(LookupTarget { table, set, navigation })
        };
        names.into_iter().filter_map(target).collect()
    }

    fn statuses(&self) -> Vec<StatusShape> {
        let options = |name: &str| self.details.get(name).map(options_of).unwrap_or_default();
        let states = options("statecode");
        let mut statuses: Vec<StatusShape> = Vec::new();
        for option in options("statuscode") {
            let state = option.state.unwrap_or_default();
            let named = states.iter().find(|candidate| candidate.value == state).and_then(|state| state.default_status);
            let is_first = statuses.iter().all(|status| status.state != state);
            let is_default = named.map_or(is_first, |status| status == option.value);
            statuses.push(StatusShape { state, status: option.value, label: option.label(), is_default });
        }
        statuses
    }
}

/// The type, whichever of the two properties tells it: several types call themselves `Virtual`.
fn type_name(attribute: &AttributeWire) -> &str {
    let plain = attribute.attribute_type.as_deref().unwrap_or("Virtual");
    if plain != "Virtual" {
        return plain;
    }
    let named = attribute.attribute_type_name.as_ref().map_or("Virtual", |name| name.value.as_str());
    named.strip_suffix("Type").unwrap_or(named)
}

fn options_of(attribute: &AttributeWire) -> Vec<OptionWire> {
    let sets = [&attribute.option_set, &attribute.global_option_set];
    let filled = sets.into_iter().flatten().filter_map(|set| set.options.clone()).find(|options| !options.is_empty());
    filled.unwrap_or_default()
}

fn choice_options(attribute: &AttributeWire) -> Vec<ChoiceOption> {
    options_of(attribute).iter().map(|option| ChoiceOption { value: option.value, label: option.label() }).collect()
}

fn boolean_labels(attribute: &AttributeWire) -> [String; 2] {
    let set = attribute.option_set.as_ref().or(attribute.global_option_set.as_ref());
    let label =
        |option: Option<&OptionWire>, default: &str| option.map_or_else(|| default.to_owned(), OptionWire::label);
    [
        label(set.and_then(|set| set.false_option.as_ref()), "No"),
        label(set.and_then(|set| set.true_option.as_ref()), "Yes"),
    ]
}

fn key(wire: &KeyWire) -> TableKey {
    TableKey {
        name: wire.logical_name.clone().unwrap_or_else(|| wire.schema_name.to_lowercase()),
        columns: wire.key_attributes.clone(),
        active: wire.entity_key_index_status.as_deref() == Some("Active"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definitions() -> Definitions {
        let attributes = json!([
            {"LogicalName": "wr_amount", "AttributeType": "Money", "RequiredLevel": {"Value": "None"}},
            {"LogicalName": "wr_amount_base", "AttributeType": "Money", "AttributeOf": "wr_amount"},
            {"LogicalName": "wr_tags", "AttributeType": "Virtual", "AttributeTypeName": {"Value": "MultiSelectPicklistType"}},
            {"LogicalName": "wr_photo", "AttributeType": "Virtual", "AttributeTypeName": {"Value": "ImageType"}},
            {"LogicalName": "customerid", "AttributeType": "Customer", "RequiredLevel": {"Value": "SystemRequired"}},
            {"LogicalName": "ownerid", "AttributeType": "Owner"},
            {"LogicalName": "createdon", "AttributeType": "DateTime", "IsValidForCreate": false, "IsValidForUpdate": false},
            {"LogicalName": "wr_number", "AttributeType": "String", "RequiredLevel": {"Value": "SystemRequired"}},
            {"LogicalName": "statuscode", "AttributeType": "Status", "RequiredLevel": {"Value": "SystemRequired"}}
        ]);
        let label = |text: &str| json!({"UserLocalizedLabel": {"Label": text}, "LocalizedLabels": []});
        let details = json!([
            {"LogicalName": "wr_amount", "MinValue": 0.0, "MaxValue": 1000.0, "Precision": 4},
            {"LogicalName": "wr_number", "MaxLength": 20, "AutoNumberFormat": "W-{SEQNUM:5}"},
            {"LogicalName": "customerid", "Targets": ["account", "contact"]},
            {"LogicalName": "ownerid", "Targets": ["systemuser", "team"]},
            {"LogicalName": "statecode", "OptionSet": {"Options": [{"Value": 0, "DefaultStatus": 2}, {"Value": 1}]}},
            {"LogicalName": "statuscode", "OptionSet": {"Options": [
                {"Value": 1, "State": 0, "Label": label("New")},
                {"Value": 2, "State": 0, "Label": label("Open")},
                {"Value": 5, "State": 1, "Label": label("Solved")}]}}
        ]);
        let relationships = json!([
            {"ReferencingAttribute": "customerid", "ReferencedEntity": "account",
             "ReferencingEntityNavigationPropertyName": "customerid_account"},
            {"ReferencingAttribute": "customerid", "ReferencedEntity": "contact",
             "ReferencingEntityNavigationPropertyName": "customerid_contact"},
            {"ReferencingAttribute": "ownerid", "ReferencedEntity": "owner",
             "ReferencingEntityNavigationPropertyName": "ownerid"}
        ]);
        let details: Vec<AttributeWire> = serde_json::from_value(details).unwrap();
        let sets = ["account", "contact", "systemuser", "team"];
        Definitions {
            entity: serde_json::from_value(json!({
                "LogicalName": "wr_order", "EntitySetName": "wr_orders", "PrimaryIdAttribute": "wr_orderid"
            }))
            .unwrap(),
            attributes: serde_json::from_value(attributes).unwrap(),
            details: details.into_iter().map(|detail| (detail.logical_name.clone(), detail)).collect(),
            keys: Vec::new(),
            relationships: serde_json::from_value(relationships).unwrap(),
            sets: sets.into_iter().map(|table| (table.to_owned(), format!("{table}s"))).collect(),
            needs_owner: false,
        }
    }

    fn navigations(shape: &TableShape, column: &str) -> Vec<String> {
        let Some(ColumnKind::Lookup { targets }) = shape.column(column).map(|column| &column.kind) else {
            panic!("`{column}` is no lookup")
        };
        targets.iter().map(|target| format!("{} {} {}", target.table, target.set, target.navigation)).collect()
    }

    #[test]
    fn lookups_know_their_targets_sets_and_navigation() {
        let shape = definitions().shape();
        assert_eq!(
            navigations(&shape, "customerid"),
            ["account accounts customerid_account", "contact contacts customerid_contact"]
        );
        assert_eq!(navigations(&shape, "ownerid"), ["systemuser systemusers ownerid", "team teams ownerid"]);
    }

    #[test]
    fn details_come_from_the_typed_casts() {
        let shape = definitions().shape();
        let amount = shape.column("wr_amount").unwrap();
        assert_eq!(amount.kind, ColumnKind::Money { scale: 4, min: 0.0, max: 1_000.0 });
        assert!(shape.column("wr_amount_base").is_none(), "a column of a column is no column");
        assert!(!shape.column("createdon").unwrap().can_update);
        let required: Vec<&str> =
            shape.columns.values().filter(|column| column.required).map(|column| column.name.as_str()).collect();
        assert_eq!(required, ["customerid"], "not what the service numbers or fills by itself");
    }

    #[test]
    fn virtual_columns_are_told_apart_by_their_type_name() {
        let shape = definitions().shape();
        assert_eq!(shape.column("wr_tags").unwrap().kind, ColumnKind::Choices { options: Vec::new() });
        assert_eq!(shape.column("wr_photo").unwrap().kind, ColumnKind::Unsupported { name: "Image".to_owned() });
    }

    #[test]
    fn an_owner_is_needed_where_there_can_be_one_and_several_users_create() {
        assert_eq!(definitions().shape().owner, None);
        let several = || Definitions { needs_owner: true, ..definitions() };
        assert_eq!(several().shape().owner.as_deref(), Some(OWNER));
        let mut ownerless = several();
        ownerless.attributes.retain(|attribute| attribute.logical_name != OWNER);
        assert_eq!(ownerless.shape().owner, None);
    }

    #[test]
    fn each_state_has_one_default_status() {
        let defaults: Vec<(i32, i32)> = definitions()
            .shape()
            .statuses
            .iter()
            .filter(|status| status.is_default)
            .map(|status| (status.state, status.status))
            .collect();
        assert_eq!(defaults, [(0, 2), (1, 5)]);
    }
}
