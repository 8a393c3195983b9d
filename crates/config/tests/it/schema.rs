//! The schemas for editors.

use flowgate_config::schema;

use crate::registry::registry;

#[test]
fn the_connectors_fragments_are_merged_in() {
    let schemas = schema(&registry());
    let names: Vec<&str> = schemas.keys().map(String::as_str).collect();
    let expected = ["environment.schema.json", "flow.schema.json", "flowgate.schema.json", "table.schema.json"];
    assert_eq!(names, expected);
    let project = &schemas["flowgate.schema.json"];
    let connection = &project["properties"]["connections"]["additionalProperties"];
    let format = &connection["properties"]["files"]["properties"]["format"];
    assert_eq!(format["$ref"], "#/$defs/files_connection_Format");
    assert_eq!(project["$defs"]["files_connection_Format"]["enum"][0], "csv");
    let stream = &schemas["flow.schema.json"]["properties"]["streams"]["additionalProperties"];
    assert_eq!(stream["properties"]["table"]["type"], "string");
    assert_eq!(stream["additionalProperties"], false);
}

#[test]
fn the_schema_of_a_flow() {
    insta::assert_json_snapshot!(schema(&[])["flow.schema.json"]);
}
