//! The JSON Schema of scenario files.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{Schema, json_schema};
use serde_json::Value;

use super::Scenario;

/// The schema, in draft 2020-12. Editors use it for completion, and show its descriptions.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Scenario>();
    RecursiveTransform(no_null).transform(&mut schema);
    RecursiveTransform(references).transform(&mut schema);
    schema.insert("title".to_owned(), "a scenario of kmodlab".into());
    // Their absence is told together with other errors, so that the types do not require them.
    schema.insert("required".to_owned(), vec!["name", "steps"].into());
    schema.to_value()
}

/// A key may be absent, but not without a value; and a default that is nothing need not be shown.
fn no_null(schema: &mut Schema) {
    if schema.get("default").is_some_and(|default| default.is_null()) {
        schema.remove("default");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let description = schema.get("description").cloned();
    let Some(Value::Array(choices)) = schema.get_mut("anyOf") else { return };
    choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
    if let [only] = choices.as_slice() {
        let mut only = Schema::try_from(only.clone()).unwrap_or_else(|_| json_schema!({}));
        if let Some(description) = description {
            only.insert("description".to_owned(), description);
        }
        *schema = only;
    }
}

/// Where text must have a form, a reference to a value of the image may stand for it.
fn references(schema: &mut Schema) {
    let with_reference = |pattern: &str| format!(r"{pattern}|\$<[a-z][a-z0-9.-]*>");
    if let Some(Value::String(pattern)) = schema.get_mut("pattern") {
        *pattern = with_reference(pattern);
    }
    if let Some(Value::Object(patterns)) = schema.get_mut("patternProperties") {
        let inner = std::mem::take(patterns);
        patterns.extend(inner.into_iter().map(|(pattern, value)| (with_reference(&pattern), value)));
    }
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

    /// Every key that a person may write has words for the editor to show.
    #[test]
    fn every_key_is_described() {
        fn visit(path: &str, schema: &Value, missing: &mut Vec<String>) {
            let Value::Object(object) = schema else { return };
            for (key, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
                // A key of a variant is described by the variant.
                if property.get("description").or(object.get("description")).is_none() {
                    missing.push(format!("{path}/{key}"));
                }
            }
            for (key, inner) in object {
                let inner = inner.as_array().map_or_else(|| vec![inner], |list| list.iter().collect());
                inner.iter().for_each(|inner| visit(&format!("{path}/{key}"), inner, missing));
            }
        }
        let mut missing = Vec::new();
        visit("", &schema(), &mut missing);
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn nothing_may_be_null() {
        assert!(!schema().to_string().contains("null"), "{}", schema());
    }
}
