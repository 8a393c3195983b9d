//! The types of the schema and the indexes a request needs to find its way in them.
//!
//! Promise: [`Schema::reindex`] restores every derived map from the stored parts, so a schema
//! survives being written to disk. Left out: how tables come to be (`build`).

use std::collections::{BTreeMap, HashMap as StdMap};
use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::kinds::{ColumnKind, OptionSet, Required};
use super::label::Label;

/// A table's place in [`Schema::tables`]; never reused.
pub(crate) type TableId = u16;
/// A column's place in [`Table::columns`]; never reused. Ordinal 0 is the primary id.
pub(crate) type Ordinal = u16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ownership {
    User,
    Organization,
    Business,
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) id: Uuid,
    pub(crate) ordinal: Ordinal,
    pub(crate) logical: String,
    pub(crate) schema_name: String,
    pub(crate) label: Label,
    #[serde(default)]
    pub(crate) description: Label,
    pub(crate) kind: ColumnKind,
    pub(crate) required: Required,
    /// Whether a create without it is refused; `ApplicationRequired` alone binds forms only.
    pub(crate) enforced: bool,
    pub(crate) for_create: bool,
    pub(crate) for_update: bool,
    /// False for secrets, which are written only.
    #[serde(default = "readable")]
    pub(crate) for_read: bool,
    pub(crate) default: Option<i64>,
    /// Values are handed out as this prefix and a rising number.
    pub(crate) auto_number: Option<String>,
    pub(crate) is_custom: bool,
    pub(crate) deleted: bool,
    /// The JSON property a read answers: the logical name, or `_name_value` for lookups.
    pub(crate) wire: String,
}

fn readable() -> bool {
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KeyStatus {
    Pending,
    InProgress,
    Active,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AlternateKey {
    pub(crate) id: Uuid,
    pub(crate) schema_name: String,
    pub(crate) label: Label,
    pub(crate) columns: Vec<Ordinal>,
    pub(crate) status: KeyStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::enum_variant_names, reason = "names are the product's own")]
pub(crate) enum Cascade {
    Cascade,
    NoCascade,
    RemoveLink,
    Restrict,
}

/// An operation on a row that rows pointing at it may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Follow {
    Assign,
    Merge,
    Reparent,
    Share,
    Unshare,
}

/// The operations that a relationship's rows follow.
pub(crate) type Follows = Vec<Follow>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OneToMany {
    pub(crate) id: Uuid,
    pub(crate) schema_name: String,
    /// The table pointed at.
    pub(crate) referenced: TableId,
    /// The table that holds the lookup.
    pub(crate) referencing: TableId,
    pub(crate) column: Ordinal,
    pub(crate) to_one: String,
    pub(crate) to_many: String,
    pub(crate) on_delete: Cascade,
    #[serde(default)]
    pub(crate) follows: Follows,
    pub(crate) is_custom: bool,
    /// Whether hierarchy conditions follow it.
    #[serde(default)]
    pub(crate) is_hierarchical: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ManyToMany {
    pub(crate) id: Uuid,
    pub(crate) schema_name: String,
    pub(crate) intersect: TableId,
    pub(crate) tables: [TableId; 2],
    pub(crate) columns: [Ordinal; 2],
    pub(crate) navigation: [String; 2],
}

impl ManyToMany {
    /// The side a table's navigation property stands on. A table related to itself has two names;
    /// where they are the same, the first side is meant.
    pub(crate) fn side_of(&self, table: TableId, navigation: &str) -> usize {
        if self.tables[0] == self.tables[1] {
            return usize::from(self.navigation[0] != navigation);
        }
        usize::from(self.tables[0] != table)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Relationship {
    OneToMany(OneToMany),
    ManyToMany(ManyToMany),
}

/// What a JSON property of a table means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    Column(Ordinal),
    /// `_name_value`: readable, never writable.
    LookupValue(Ordinal),
    /// A single-valued navigation property: the lookup and the index of its target.
    ToOne(Ordinal, u16),
    /// A collection-valued one: the index of its relationship.
    ToMany(u16),
    Parties(Ordinal),
}

/// Ordinals of the columns the server fills itself, looked up once per schema.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    pub(crate) created_on: Option<Ordinal>,
    pub(crate) created_by: Option<Ordinal>,
    pub(crate) created_on_behalf: Option<Ordinal>,
    pub(crate) modified_on: Option<Ordinal>,
    pub(crate) modified_by: Option<Ordinal>,
    pub(crate) modified_on_behalf: Option<Ordinal>,
    pub(crate) overridden_created_on: Option<Ordinal>,
    pub(crate) version: Option<Ordinal>,
    pub(crate) owner: Option<Ordinal>,
    pub(crate) owning_business_unit: Option<Ordinal>,
    pub(crate) owning_user: Option<Ordinal>,
    pub(crate) owning_team: Option<Ordinal>,
    pub(crate) organization: Option<Ordinal>,
    pub(crate) state: Option<Ordinal>,
    pub(crate) status: Option<Ordinal>,
    pub(crate) currency: Option<Ordinal>,
    pub(crate) exchange_rate: Option<Ordinal>,
    pub(crate) partition: Option<Ordinal>,
    pub(crate) ttl: Option<Ordinal>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) id: TableId,
    pub(crate) metadata_id: Uuid,
    pub(crate) logical: String,
    pub(crate) schema_name: String,
    pub(crate) set_name: String,
    /// The collection's schema name; the schema name and an `s` where it is not given.
    #[serde(default)]
    pub(crate) collection_name: Option<String>,
    pub(crate) label: Label,
    pub(crate) plural: Label,
    #[serde(default)]
    pub(crate) description: Label,
    pub(crate) object_type_code: i32,
    pub(crate) primary_name: Option<Ordinal>,
    pub(crate) ownership: Ownership,
    pub(crate) is_activity: bool,
    pub(crate) is_elastic: bool,
    pub(crate) is_custom: bool,
    pub(crate) is_principal: bool,
    pub(crate) is_intersect: bool,
    pub(crate) has_notes: bool,
    pub(crate) has_activities: bool,
    pub(crate) duplicates: bool,
    pub(crate) change_tracking: bool,
    pub(crate) optimistic: bool,
    /// Whether CreateMultiple and UpdateMultiple exist for it.
    pub(crate) bulk: bool,
    /// Whether callers may write rows at all.
    pub(crate) writable: bool,
    /// The action that must be used to leave the active state, where one is prescribed.
    pub(crate) close_action: Option<String>,
    pub(crate) deleted: bool,
    pub(crate) columns: Vec<Column>,
    pub(crate) keys: Vec<AlternateKey>,
    #[serde(skip)]
    pub(crate) properties: HashMap<Box<str>, Property>,
    #[serde(skip)]
    pub(crate) logical_names: HashMap<Box<str>, Ordinal>,
    /// `Microsoft.Dynamics.CRM.<logical>`, compared with every `@odata.type`.
    #[serde(skip)]
    pub(crate) odata_type: String,
    #[serde(skip)]
    pub(crate) known: Known,
    /// Values a create takes for columns it leaves out.
    #[serde(skip)]
    pub(crate) defaults: Vec<(Ordinal, i64)>,
}

impl Table {
    pub(crate) fn column(&self, ordinal: Ordinal) -> &Column {
        &self.columns[usize::from(ordinal)]
    }

    /// The column of this logical name, unless it was deleted.
    pub(crate) fn find(&self, logical: &str) -> Option<&Column> {
        self.logical_names.get(logical).map(|ordinal| self.column(*ordinal))
    }

    pub(crate) fn ordinal(&self, logical: &str) -> Option<Ordinal> {
        self.logical_names.get(logical).copied()
    }

    pub(crate) fn primary_id(&self) -> &str {
        &self.columns[0].logical
    }

    pub(crate) fn primary_name(&self) -> Option<&Column> {
        self.primary_name.map(|ordinal| self.column(ordinal))
    }

    /// The columns a caller can see, in ordinal order.
    pub(crate) fn live_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.deleted)
    }
}

/// What a part of the schema is, to clients that ask what was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PartKind {
    Entity,
    Attribute,
    Relationship,
    OptionSet,
    EntityKey,
}

impl PartKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            PartKind::Entity => "Entity",
            PartKind::Attribute => "Attribute",
            PartKind::Relationship => "Relationship",
            PartKind::OptionSet => "OptionSet",
            PartKind::EntityKey => "EntityKey",
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct DeletedPart {
    pub(crate) version: u64,
    pub(crate) kind: PartKind,
    pub(crate) id: Uuid,
    /// Simulated seconds since 1970.
    pub(crate) at: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Schema {
    /// Rises with every metadata write; `globalmetadataversion` is made from it.
    pub(crate) version: u64,
    pub(crate) tables: Vec<Arc<Table>>,
    pub(crate) relationships: Vec<Relationship>,
    pub(crate) option_sets: Vec<OptionSet>,
    /// Versions under which parts last changed, by metadata id.
    #[serde(default)]
    pub(crate) changed: BTreeMap<Uuid, u64>,
    /// Parts that are gone, oldest first.
    #[serde(default)]
    pub(crate) deleted: Vec<DeletedPart>,
    #[serde(skip)]
    by_logical: StdMap<String, TableId>,
    #[serde(skip)]
    by_set: StdMap<String, TableId>,
}

impl Schema {
    pub(crate) fn table(&self, id: TableId) -> &Arc<Table> {
        &self.tables[usize::from(id)]
    }

    pub(crate) fn by_logical(&self, logical: &str) -> Option<&Arc<Table>> {
        self.by_logical.get(logical).map(|id| self.table(*id))
    }

    pub(crate) fn by_set(&self, set: &str) -> Option<&Arc<Table>> {
        self.by_set.get(set).map(|id| self.table(*id))
    }

    pub(crate) fn live_tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.iter().filter(|table| !table.deleted)
    }

    pub(crate) fn one_to_many(&self) -> impl Iterator<Item = &OneToMany> {
        self.relationships.iter().filter_map(|relationship| match relationship {
            Relationship::OneToMany(one) => Some(one),
            Relationship::ManyToMany(_) => None,
        })
    }

    pub(crate) fn many_to_many(&self) -> impl Iterator<Item = &ManyToMany> {
        self.relationships.iter().filter_map(|relationship| match relationship {
            Relationship::ManyToMany(many) => Some(many),
            Relationship::OneToMany(_) => None,
        })
    }

    /// Rebuilds every derived map. Call after any change and after reading from disk.
    pub(crate) fn reindex(&mut self) {
        self.by_logical.clear();
        self.by_set.clear();
        for table in self.tables.iter().filter(|table| !table.deleted) {
            self.by_logical.insert(table.logical.clone(), table.id);
            self.by_set.insert(table.set_name.clone(), table.id);
        }
        let relationships = std::mem::take(&mut self.relationships);
        for table in &mut self.tables {
            index_table(Arc::make_mut(table), &relationships);
        }
        self.relationships = relationships;
    }
}

fn index_table(table: &mut Table, relationships: &[Relationship]) {
    table.odata_type = format!("Microsoft.Dynamics.CRM.{}", table.logical);
    table.properties.clear();
    table.logical_names.clear();
    for column in table.columns.iter().filter(|column| !column.deleted) {
        table.logical_names.insert(column.logical.as_str().into(), column.ordinal);
        match &column.kind {
            ColumnKind::Lookup { targets } => {
                table.properties.insert(column.wire.as_str().into(), Property::LookupValue(column.ordinal));
                for (index, target) in targets.iter().enumerate() {
                    let property = Property::ToOne(column.ordinal, index as u16);
                    // The owner's two targets share one navigation property: the first stands for both.
                    table.properties.entry(target.navigation.as_str().into()).or_insert(property);
                }
                // An activity has its owner under the name that all activities share, and under one of its own.
                if table.is_activity && column.logical == "ownerid" {
                    let own = format!("ownerid_{}", table.logical);
                    table.properties.entry(own.into()).or_insert(Property::ToOne(column.ordinal, 0));
                }
            }
            ColumnKind::PartyList { .. } => {
                table.properties.insert(column.logical.as_str().into(), Property::Parties(column.ordinal));
            }
            _ => {
                table.properties.insert(column.logical.as_str().into(), Property::Column(column.ordinal));
            }
        }
    }
    table.known = known(table);
    table.defaults = defaults(table);
    for (index, relationship) in relationships.iter().enumerate() {
        let to_many = Property::ToMany(index as u16);
        match relationship {
            Relationship::OneToMany(one) if one.referenced == table.id => {
                table.properties.insert(one.to_many.as_str().into(), to_many);
            }
            Relationship::ManyToMany(many) => {
                for side in 0..2 {
                    if many.tables[side] == table.id {
                        table.properties.insert(many.navigation[side].as_str().into(), to_many);
                    }
                }
            }
            Relationship::OneToMany(_) => {}
        }
    }
}

fn known(table: &Table) -> Known {
    let at = |name: &str| table.ordinal(name);
    Known {
        created_on: at("createdon"),
        created_by: at("createdby"),
        created_on_behalf: at("createdonbehalfby"),
        modified_on: at("modifiedon"),
        modified_by: at("modifiedby"),
        modified_on_behalf: at("modifiedonbehalfby"),
        overridden_created_on: at("overriddencreatedon"),
        version: at("versionnumber"),
        owner: at("ownerid"),
        owning_business_unit: at("owningbusinessunit"),
        owning_user: at("owninguser"),
        owning_team: at("owningteam"),
        organization: at("organizationid").filter(|ordinal| *ordinal != 0),
        state: at("statecode"),
        status: at("statuscode"),
        currency: at("transactioncurrencyid").filter(|ordinal| *ordinal != 0),
        exchange_rate: at("exchangerate").filter(|_| table.logical != "transactioncurrency"),
        partition: at("partitionid").filter(|_| table.is_elastic),
        ttl: at("ttlinseconds").filter(|_| table.is_elastic),
    }
}

/// Two-option columns default to no; choices to what they declare.
fn defaults(table: &Table) -> Vec<(Ordinal, i64)> {
    let is_default = |column: &&Column| !column.deleted;
    table
        .columns
        .iter()
        .filter(is_default)
        .filter_map(|column| match column.kind {
            ColumnKind::Boolean { .. } => Some((column.ordinal, column.default.unwrap_or(0))),
            ColumnKind::Choice { .. } | ColumnKind::Integer { .. } => {
                column.default.map(|value| (column.ordinal, value))
            }
            _ => None,
        })
        .collect()
}
