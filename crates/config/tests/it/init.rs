//! The project that `flowgate init` writes.

use flowgate_config::{load, new_project};
use tempfile::tempdir;

use crate::registry::{registry, write};

#[test]
fn a_new_project_passes_without_a_warning() {
    let dir = tempdir().unwrap();
    write(dir.path(), &new_project());
    let loaded = load(dir.path(), None, &registry()).unwrap();
    assert_eq!(loaded.warnings.problems.len(), 0);
    let flow = &loaded.project.flows["offices"];
    assert_eq!(flow.loads[0].table, "account");
    assert_eq!(loaded.project.tables[0].keys["wr_account_number"], ["accountnumber"]);
}

#[test]
fn every_column_the_select_needs_is_in_the_file() {
    let files = new_project();
    let find = |name: &str| files.iter().find(|(path, _)| *path == name).unwrap().1;
    let header: Vec<&str> = find("data/offices.csv").lines().next().unwrap().split(',').collect();
    assert_eq!(find("data/offices.csv").lines().count(), 13);
    for column in header {
        assert!(find("flows/offices.sql").contains(column), "{column} is not used");
    }
}
