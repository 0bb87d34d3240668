//! Scenarios × images → cases.

use std::path::PathBuf;
use std::sync::Arc;

use super::Scenario;
use super::limits::Limit;
use super::load::{File, FileErrors};
use super::validate::{Context, read};
use super::values::Values;
use crate::process::shell_quote;
use crate::yaml::Spanned;

/// An image, as scenarios see it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// The arguments of `kmodlab` that choose it.
    pub arguments: String,
    /// Its values.
    pub values: Values,
}

/// One scenario on one image.
#[derive(Debug, Clone)]
pub struct Case {
    /// `topic/name@image`.
    pub id: String,
    /// The scenario's id.
    pub scenario_id: String,
    /// The image's name.
    pub image: String,
    /// The scenario's file.
    pub path: PathBuf,
    /// The arguments of `kmodlab` that run it again.
    pub again: String,
    /// From what the delays between its steps are drawn while programs run beside them; None: there are none.
    pub seed: Option<u64>,
    /// What kernels and machines cannot do of it.
    pub limits: Vec<Spanned<Limit>>,
    /// The scenario, with the image's values in it.
    pub scenario: Arc<Scenario>,
}

impl Case {
    /// The case with delays drawn from `seed`, as one of several repeats where it has a number.
    #[must_use]
    pub fn seeded(&self, seed: u64, repeat: Option<u32>) -> Case {
        let scenario_id = match repeat {
            Some(number) => format!("{}#{number}", self.scenario_id),
            None => self.scenario_id.clone(),
        };
        Case {
            id: format!("{scenario_id}@{}", self.image),
            scenario_id,
            again: format!("{} --seed {seed}", self.again),
            seed: Some(seed),
            ..self.clone()
        }
    }
}

/// Reads each scenario as each image sees it. The cases come scenario by scenario.
///
/// # Errors
///
/// What is wrong with the files: everything, each thing once, even if several images see it.
pub fn expand(files: &[File], targets: &[Target], context: Context<'_>) -> Result<Vec<Case>, FileErrors> {
    let mut cases = Vec::new();
    let mut errors = FileErrors::default();
    for file in files {
        let mut diagnostics = Vec::new();
        for target in targets {
            match read(&file.text, &target.values, context) {
                Ok(scenario) => cases.push(Case {
                    id: format!("{}@{}", file.id, target.name),
                    scenario_id: file.id.clone(),
                    image: target.name.clone(),
                    path: file.path.clone(),
                    again: format!("run {} {}", shell_quote(&file.path.to_string_lossy()), target.arguments),
                    seed: None,
                    limits: Vec::new(),
                    scenario: Arc::new(scenario),
                }),
                Err(found) => diagnostics.extend(found),
            }
        }
        if !diagnostics.is_empty() {
            diagnostics.sort();
            diagnostics.dedup();
            errors.0.push((file.clone(), diagnostics));
        }
    }
    if errors.0.is_empty() { Ok(cases) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::arch::Arch;
    use crate::scenario::values::Value;

    fn targets() -> Vec<Target> {
        let offsets = [("x86_64", 5), ("arm", 4)];
        offsets
            .map(|(name, offset)| {
                let own = BTreeMap::from([("insn-offset".to_owned(), Value::Int(offset))]);
                Target {
                    name: name.to_owned(),
                    arguments: format!("--image {name}"),
                    values: Values::new(name, name.parse::<Arch>().unwrap(), own),
                }
            })
            .into()
    }

    fn file(id: &str, text: &str) -> File {
        File { id: id.to_owned(), path: format!("scenarios/{id}.yaml").into(), text: text.to_owned() }
    }

    const CONTEXT: Context<'_> = Context { modules: &[], errnos: &["ENOENT"] };

    #[test]
    fn each_scenario_meets_each_image_with_its_values() {
        let text = "name: x\nsteps: [{ run: echo $<insn-offset> }]\n";
        let cases = expand(&[file("a/b", text), file("c", text)], &targets(), CONTEXT).unwrap();
        let ids: Vec<_> = cases.iter().map(|case| case.id.as_str()).collect();
        assert_eq!(ids, ["a/b@x86_64", "a/b@arm", "c@x86_64", "c@arm"]);
        assert_ne!(cases[0].scenario, cases[1].scenario);
        assert_eq!(cases[0].scenario, cases[2].scenario);
    }

    #[test]
    fn the_errors_of_all_files_come_together_each_once() {
        let bad = "name: x\nsteps: [{ run: echo $<arhc> }]\nlorem: 1\n";
        let good = "name: x\nsteps: [{ run: 'true' }]\n";
        let files = [file("a", bad), file("b", good), file("c", "")];
        let errors = expand(&files, &targets(), CONTEXT).unwrap_err();
        let told: Vec<_> = errors.0.iter().map(|(file, errors)| (file.id.as_str(), errors.len())).collect();
        assert_eq!(told, [("a", 2), ("c", 1)]);
        let shown = errors.to_string();
        assert!(
            shown.contains(" --> scenarios/a.yaml:2:16\n") && shown.contains("did you mean `arch`?"),
            "{shown}"
        );
        assert!(shown.contains("error: the file is empty\n --> scenarios/c.yaml:1:1"), "{shown}");
    }
}
