//! The JSON Schema of scenario files.

use schemars::generate::SchemaSettings;

use super::Scenario;

/// The schema, in draft 2020-12. Editors use it for completion, and show its descriptions.
pub fn schema() -> serde_json::Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Scenario>();
    schema.insert("title".to_owned(), "a scenario of kmodlab".into());
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `KMODLAB_BLESS=1` the file is written anew.
    #[test]
    fn the_file_for_editors_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/schema.json");
        let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var_os("KMODLAB_BLESS").is_some() {
            fs_err::write(path, &current).unwrap();
        }
        let written = fs_err::read_to_string(path).unwrap();
        assert!(written == current, "scenarios/schema.json is stale\nrun this test with KMODLAB_BLESS=1");
    }
}
