//! YAML to a checked Project, with spans and hints.
