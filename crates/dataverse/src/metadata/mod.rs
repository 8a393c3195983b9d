//! What tables look like, read live and kept for as long as the service's metadata stays the same.

mod shape;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flowgate_core::destination::Class;
use flowgate_core::{Code, ConnectorError, Elapsed, ErrorKind, TableShape};
use futures::future::try_join_all;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::call::{Call, CallError};
use crate::client::Client;
use crate::earned::Expected;
use shape::Definitions;
use wire::{AttributeWire, Collection, EntityWire, KeyWire, RelationshipWire};

/// A shape younger than this is used as it is; the service's own caches are as old (dossier section 1).
const FRESH: Duration = Duration::from_secs(30);

/// The longest table name there is.
const NAME_BYTES_MAX: usize = 128;

/// QueryBuilderNoEntity.
const NO_ENTITY: u32 = 0x8004_1102;

/// What the loader knows of a table beyond its shape.
#[derive(Debug, Clone)]
pub(crate) struct TableFacts {
    pub(crate) shape: Arc<TableShape>,
    pub(crate) has_create_multiple: bool,
    pub(crate) has_update_multiple: bool,
    pub(crate) is_change_tracked: bool,
    /// Columns that cannot be selected in a read.
    pub(crate) unreadable: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Cached {
    facts: Arc<TableFacts>,
    checked: Elapsed,
    version: Option<String>,
}

/// The tables read so far.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    tables: Mutex<HashMap<String, Cached>>,
}

#[derive(Deserialize)]
struct VersionAnswer {
    #[serde(rename = "@Microsoft.Dynamics.CRM.globalmetadataversion")]
    version: Option<String>,
}

/// Whether the service may answer from a cache that is some seconds old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consistency {
    Cached,
    Strong,
}

impl Metadata {
    /// The facts of a table, as they are now.
    pub(crate) async fn table(&self, client: &Client, table: &str) -> Result<Arc<TableFacts>, ConnectorError> {
        let held = self.tables().get(table).cloned();
        let now = client.clock().elapsed();
        if let Some(held) = &held {
            if now.since(held.checked) < FRESH {
                return Ok(Arc::clone(&held.facts));
            }
        }
        let version = current_version(client).await?;
        let facts = match held {
            Some(held) if version.is_some() && held.version == version => held.facts,
            _ => Arc::new(Box::pin(read_table(client, table, Consistency::Cached)).await?),
        };
        let cached = Cached { facts: Arc::clone(&facts), checked: now, version };
        self.tables().insert(table.to_owned(), cached);
        Ok(facts)
    }

    /// The facts of a table as last described: a load keeps the shape it began with.
    pub(crate) async fn table_as_described(
        &self,
        client: &Client,
        table: &str,
    ) -> Result<Arc<TableFacts>, ConnectorError> {
        let held = self.tables().get(table).map(|held| Arc::clone(&held.facts));
        match held {
            Some(facts) => Ok(facts),
            None => self.table(client, table).await,
        }
    }

    /// The facts of a table past every cache, for a table that was just changed.
    pub(crate) async fn table_now(&self, client: &Client, table: &str) -> Result<Arc<TableFacts>, ConnectorError> {
        let facts = Arc::new(Box::pin(read_table(client, table, Consistency::Strong)).await?);
        self.tables().remove(table);
        Ok(facts)
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, HashMap<String, Cached>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes whenever any definition changes. `None` where the service does not tell.
async fn current_version(client: &Client) -> Result<Option<String>, ConnectorError> {
    let prefer = HeaderValue::from_static("odata.include-annotations=\"Microsoft.Dynamics.CRM.globalmetadataversion\"");
    let call = Call::get("organizations?$select=organizationid", Class::Interactive)
        .header(HeaderName::from_static("prefer"), prefer);
    let answer: VersionAnswer = read_json(client, call, "reading the metadata version").await?;
    Ok(answer.version)
}

async fn read_table(client: &Client, table: &str, consistency: Consistency) -> Result<TableFacts, ConnectorError> {
    if !is_name(table) {
        return Err(table_not_found(table).hint("a table's logical name has lower-case letters, digits and `_`"));
    }
    let reader = Reader { client, table, consistency };
    let entity = reader.entity().await?;
    let attributes: Vec<AttributeWire> = reader
        .list(
            "/Attributes?$select=LogicalName,AttributeType,AttributeTypeName,RequiredLevel,IsValidForCreate,\
             IsValidForUpdate,IsValidForRead,AttributeOf",
        )
        .await?;
    let (details, keys, relationships, sets, has_create_multiple, has_update_multiple) = futures::try_join!(
        reader.details(&attributes),
        reader.list::<KeyWire>("/Keys?$select=SchemaName,LogicalName,KeyAttributes,EntityKeyIndexStatus"),
        reader.list::<RelationshipWire>(
            "/ManyToOneRelationships?$select=SchemaName,ReferencingAttribute,ReferencedEntity,\
             ReferencingEntityNavigationPropertyName",
        ),
        reader.sets(),
        reader.has_message("CreateMultiple"),
        reader.has_message("UpdateMultiple"),
    )?;
    let is_change_tracked = entity.change_tracking_enabled.unwrap_or(false);
    let unreadable = attributes.iter().filter(|column| column.is_valid_for_read == Some(false));
    let unreadable = unreadable.map(|column| column.logical_name.clone()).collect();
    let needs_owner = client.several_create();
    let definitions = Definitions { entity, attributes, details, keys, relationships, sets, needs_owner };
    Ok(TableFacts {
        shape: Arc::new(definitions.shape()),
        has_create_multiple,
        has_update_multiple,
        is_change_tracked,
        unreadable,
    })
}

/// Reads the definitions of one table.
struct Reader<'a> {
    client: &'a Client,
    table: &'a str,
    consistency: Consistency,
}

/// Typed casts: the types that need one, the cast, and what it adds.
const CASTS: &[(&[&str], &str, &str)] = &[
    (&["String"], "String", "$select=LogicalName,MaxLength,AutoNumberFormat"),
    (&["Memo"], "Memo", "$select=LogicalName,MaxLength"),
    (&["Integer"], "Integer", "$select=LogicalName,MinValue,MaxValue"),
    (&["Decimal"], "Decimal", "$select=LogicalName,MinValue,MaxValue,Precision"),
    (&["Double"], "Double", "$select=LogicalName,MinValue,MaxValue,Precision"),
    (&["Money"], "Money", "$select=LogicalName,MinValue,MaxValue,Precision"),
    (&["DateTime"], "DateTime", "$select=LogicalName,DateTimeBehavior"),
    (&["Boolean"], "Boolean", "$select=LogicalName&$expand=OptionSet"),
    (
        &["Picklist"],
        "Picklist",
        "$select=LogicalName&$expand=OptionSet($select=Options),GlobalOptionSet($select=Options)",
    ),
    (
        &["Virtual"],
        "MultiSelectPicklist",
        "$select=LogicalName&$expand=OptionSet($select=Options),GlobalOptionSet($select=Options)",
    ),
    (&["State"], "State", "$select=LogicalName&$expand=OptionSet($select=Options)"),
    (&["Status"], "Status", "$select=LogicalName&$expand=OptionSet($select=Options)"),
    (&["Lookup", "Customer", "Owner"], "Lookup", "$select=LogicalName,Targets"),
];

impl Reader<'_> {
    async fn entity(&self) -> Result<EntityWire, ConnectorError> {
        let path = format!(
            "EntityDefinitions(LogicalName='{}')?$select=LogicalName,EntitySetName,PrimaryIdAttribute,\
             PrimaryNameAttribute,ChangeTrackingEnabled,TableType",
            self.table
        );
        let call = self.get(path).expecting(Expected::Json { set: None });
        match self.client.call(&call, self.client.bounds()).await {
            Ok(answer) => {
                let entity: EntityWire = parse(&answer.body, "the definition of a table")?;
                if entity.logical_name == self.table {
                    Ok(entity)
                } else {
                    Err(other_table(self.table, &entity.logical_name))
                }
            }
            Err(CallError::Refused(refusal))
                if refusal.status == StatusCode::NOT_FOUND || refusal.code == Some(NO_ENTITY) =>
            {
                Err(table_not_found(self.table))
            }
            Err(error) => Err(error.into_error(&format!("reading the definition of `{}`", self.table))),
        }
    }

    async fn list<T: DeserializeOwned>(&self, rest: &str) -> Result<Vec<T>, ConnectorError> {
        let path = format!("EntityDefinitions(LogicalName='{}'){rest}", self.table);
        let what = format!("reading the definition of `{}`", self.table);
        Ok(read_json::<Collection<T>>(self.client, self.get(path), &what).await?.value)
    }

    /// The typed properties of the columns, one request for each type that the table has.
    async fn details(&self, attributes: &[AttributeWire]) -> Result<BTreeMap<String, AttributeWire>, ConnectorError> {
        let types: BTreeSet<&str> = attributes.iter().filter_map(|column| column.attribute_type.as_deref()).collect();
        let needed = CASTS.iter().filter(|(names, ..)| names.iter().any(|name| types.contains(name)));
        let reads = needed.map(|(_, cast, query)| async move {
            let rest = format!("/Attributes/Microsoft.Dynamics.CRM.{cast}AttributeMetadata?{query}");
            self.list::<AttributeWire>(&rest).await
        });
        let details = try_join_all(reads).await?;
        Ok(details.into_iter().flatten().map(|detail| (detail.logical_name.clone(), detail)).collect())
    }

    async fn sets(&self) -> Result<BTreeMap<String, String>, ConnectorError> {
        let call = self.get("EntityDefinitions?$select=LogicalName,EntitySetName".to_owned());
        let tables: Collection<EntityWire> = read_json(self.client, call, "reading the names of all tables").await?;
        let named = tables.value.into_iter().filter_map(|table| Some((table.logical_name, table.entity_set_name?)));
        Ok(named.collect())
    }

    /// Whether the table has a bulk message (dossier section 16.3).
    async fn has_message(&self, message: &str) -> Result<bool, ConnectorError> {
        let path = format!(
            "sdkmessagefilters?$select=sdkmessagefilterid&$filter=sdkmessageid/name%20eq%20@m%20and%20\
             primaryobjecttypecode%20eq%20@t&@m='{message}'&@t='{}'",
            self.table
        );
        let what = format!("asking whether `{}` has {message}", self.table);
        let found: Collection<serde::de::IgnoredAny> = read_json(self.client, self.get(path), &what).await?;
        Ok(!found.value.is_empty())
    }

    fn get(&self, path: String) -> Call {
        let call = Call::get(path, Class::Interactive);
        match self.consistency {
            Consistency::Cached => call,
            Consistency::Strong => {
                call.header(HeaderName::from_static("consistency"), HeaderValue::from_static("Strong"))
            }
        }
    }
}

/// The logical names of all tables with what a reader needs to choose one.
pub(crate) async fn list_tables(client: &Client) -> Result<Vec<EntityWire>, ConnectorError> {
    let call = Call::get(
        "EntityDefinitions?$select=LogicalName,EntitySetName,PrimaryIdAttribute,PrimaryNameAttribute,\
         ChangeTrackingEnabled,TableType",
        Class::Interactive,
    );
    let tables: Collection<EntityWire> = read_json(client, call, "reading the names of all tables").await?;
    Ok(tables.value)
}

/// Sends a read and parses its answer. `what` begins the message of an error.
pub(crate) async fn read_json<T: DeserializeOwned>(
    client: &Client,
    call: Call,
    what: &str,
) -> Result<T, ConnectorError> {
    let call = call.expecting(Expected::Json { set: None });
    let answer = client.call(&call, client.bounds()).await.map_err(|error| error.into_error(what))?;
    parse(&answer.body, what)
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, ConnectorError> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("{what}: the answer is not of the expected form");
        ConnectorError::new(ErrorKind::Schema, Code::UNEXPECTED_ANSWER, message).caused_by(error)
    })
}

/// Whether `text` can be a logical name, and so stand in an address as it is.
pub(crate) fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(is_plain)
}

fn other_table(asked: &str, named: &str) -> ConnectorError {
    let message = format!("the definition of `{asked}` was asked for, and that of `{named}` came");
    ConnectorError::new(ErrorKind::Transient, Code::UNEARNED_ANSWER, message)
        .hint("a proxy or a cache between here and the environment does that")
}

pub(crate) fn table_not_found(table: &str) -> ConnectorError {
    ConnectorError::new(ErrorKind::NotFound, Code::TABLE_NOT_FOUND, format!("the environment has no table `{table}`"))
        .hint("write the logical name (`incident`), or create the table with `flowgate provision`")
}
