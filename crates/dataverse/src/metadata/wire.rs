//! Definitions as the service writes them (dossier section 5).

use serde::Deserialize;

/// A collection answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Collection<T> {
    pub(crate) value: Vec<T>,
}

/// `{"Value": …}`, the form of managed properties and typed names.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Valued<T> {
    #[serde(rename = "Value")]
    pub(crate) value: T,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EntityWire {
    pub(crate) logical_name: String,
    pub(crate) entity_set_name: Option<String>,
    pub(crate) primary_id_attribute: Option<String>,
    pub(crate) primary_name_attribute: Option<String>,
    #[serde(default)]
    pub(crate) change_tracking_enabled: Option<bool>,
    #[serde(default)]
    pub(crate) table_type: Option<String>,
}

/// A column: the common properties, and those of whichever typed cast was asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct AttributeWire {
    pub(crate) logical_name: String,
    pub(crate) attribute_type: Option<String>,
    pub(crate) attribute_type_name: Option<Valued<String>>,
    pub(crate) required_level: Option<Valued<String>>,
    pub(crate) is_valid_for_create: Option<bool>,
    pub(crate) is_valid_for_update: Option<bool>,
    pub(crate) is_valid_for_read: Option<bool>,
    pub(crate) attribute_of: Option<String>,
    pub(crate) max_length: Option<u32>,
    pub(crate) auto_number_format: Option<String>,
    pub(crate) min_value: Option<f64>,
    pub(crate) max_value: Option<f64>,
    pub(crate) precision: Option<u8>,
    pub(crate) date_time_behavior: Option<Valued<String>>,
    pub(crate) option_set: Option<OptionSetWire>,
    pub(crate) global_option_set: Option<OptionSetWire>,
    pub(crate) targets: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct OptionSetWire {
    pub(crate) options: Option<Vec<OptionWire>>,
    pub(crate) true_option: Option<OptionWire>,
    pub(crate) false_option: Option<OptionWire>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct OptionWire {
    pub(crate) value: i32,
    #[serde(default)]
    pub(crate) label: Option<LabelWire>,
    /// Of status options: the state the status belongs to.
    #[serde(default)]
    pub(crate) state: Option<i32>,
    /// Of state options: the status that the state alone stands for.
    #[serde(default)]
    pub(crate) default_status: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct LabelWire {
    pub(crate) localized_labels: Vec<LocalizedLabelWire>,
    pub(crate) user_localized_label: Option<LocalizedLabelWire>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct LocalizedLabelWire {
    pub(crate) label: String,
}

impl OptionWire {
    /// The label in the user's language, or in any.
    pub(crate) fn label(&self) -> String {
        let Some(label) = &self.label else { return self.value.to_string() };
        let text = label.user_localized_label.as_ref().or(label.localized_labels.first());
        text.map_or_else(|| self.value.to_string(), |text| text.label.clone())
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct KeyWire {
    pub(crate) logical_name: Option<String>,
    pub(crate) schema_name: String,
    pub(crate) key_attributes: Vec<String>,
    #[serde(default)]
    pub(crate) entity_key_index_status: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RelationshipWire {
    pub(crate) referencing_attribute: String,
    pub(crate) referenced_entity: String,
    #[serde(default)]
    pub(crate) referencing_entity_navigation_property_name: Option<String>,
}
