//! What `flowgate init` writes: a small project that passes `check` and runs at once.
//!
//! It reads a file of a dozen offices and loads them into the emulator, so that nothing outside
//! the directory is needed. Its comments are the first lesson.

/// The files of a new project: path below its directory, and contents.
pub fn new_project() -> Vec<(&'static str, &'static str)> {
    vec![
        ("flowgate.yaml", include_str!("../template/flowgate.yaml")),
        ("environments/local.yaml", include_str!("../template/environments/local.yaml")),
        ("flows/offices.yaml", include_str!("../template/flows/offices.yaml")),
        ("flows/offices.sql", include_str!("../template/flows/offices.sql")),
        ("tables/account.yaml", include_str!("../template/tables/account.yaml")),
        ("data/offices.csv", include_str!("../template/data/offices.csv")),
        // Local state is not configuration.
        (".gitignore", ".flowgate/\n"),
    ]
}
