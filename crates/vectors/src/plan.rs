//! What is checked: the entries of the vector file with the check of each. A section whose keys are not all accounted
//! for fails the test.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::entry::{Entry, Outcome};

/// All entries, and what is left out with the reason.
#[derive(Debug, Default)]
pub struct Plan {
    /// The entries.
    pub cases: Vec<Case>,
    /// What is not checked, and why.
    pub left: Vec<(String, &'static str)>,
}

/// An entry and its check.
pub struct Case {
    /// Where it is in the file.
    pub path: String,
    /// The entry.
    pub value: Value,
    check: Box<dyn Fn(&Entry<'_>) -> Outcome>,
}

impl Case {
    /// Checks `value`, which is the entry or an altered copy.
    ///
    /// # Errors
    /// When the check fails, or has not read every member.
    pub fn run(&self, value: &Value) -> Outcome {
        let entry = Entry::new(value)?;
        (self.check)(&entry)?;
        entry.finish()
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Plan {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, path: String, value: Value, check: impl Fn(&Entry<'_>) -> Outcome + 'static) {
        self.cases.push(Case { path, value, check: Box::new(check) });
    }
}

/// An object of the file that holds entries.
#[derive(Debug)]
pub struct Section<'v> {
    path: String,
    value: &'v Value,
    seen: BTreeSet<String>,
}

impl<'v> Section<'v> {
    /// The object at `path`, which is empty for the file itself.
    #[must_use]
    pub fn new(path: &str, value: &'v Value) -> Self {
        Self { path: path.to_owned(), value, seen: BTreeSet::new() }
    }

    /// The section of this name.
    #[must_use]
    pub fn inside(&mut self, name: &str) -> Section<'v> {
        Section::new(&self.path(name), self.member(name))
    }

    /// A list of entries.
    ///
    /// # Panics
    /// When it is no list, or an empty one.
    pub fn each(
        &mut self,
        name: &str,
        plan: &mut Plan,
        check: impl Fn(&Entry<'_>) -> Outcome + Clone + 'static,
    ) {
        let path = self.path(name);
        let list = self.member(name).as_array().unwrap_or_else(|| panic!("{path} is no list"));
        assert!(!list.is_empty(), "{path} is empty");
        for (index, value) in list.iter().enumerate() {
            plan.add(format!("{path}[{index}]"), value.clone(), check.clone());
        }
    }

    /// One entry.
    pub fn one(&mut self, name: &str, plan: &mut Plan, check: impl Fn(&Entry<'_>) -> Outcome + 'static) {
        plan.add(self.path(name), self.member(name).clone(), check);
    }

    /// Members of the section itself that make an entry together.
    pub fn own(&mut self, names: &[&str], plan: &mut Plan, check: impl Fn(&Entry<'_>) -> Outcome + 'static) {
        let mut value = json!({});
        for name in names {
            value[*name] = self.member(name).clone();
        }
        plan.add(self.path.clone(), value, check);
    }

    /// What is not checked here.
    pub fn leave(&mut self, name: &str, plan: &mut Plan, reason: &'static str) {
        self.member(name);
        plan.left.push((self.path(name), reason));
    }

    /// To be called at the end.
    ///
    /// # Panics
    /// When a key was never named.
    pub fn finish(&self) {
        let keys = self.value.as_object().expect("a section is an object").keys();
        let unknown: Vec<_> = keys.filter(|key| !self.seen.contains(*key)).collect();
        assert!(unknown.is_empty(), "{} holds entries without a check: {unknown:?}", self.path);
    }

    /// A member as it is, which is accounted for then.
    ///
    /// # Panics
    /// When it is missing, as all others do.
    pub fn member(&mut self, name: &str) -> &'v Value {
        self.seen.insert(name.to_owned());
        let path = self.path(name);
        self.value.get(name).unwrap_or_else(|| panic!("{path} is missing"))
    }

    fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// The file `waku-v1.json`: the full one if `POSTE_VECTORS` names its directory, else the copy in `testdata` of the crate.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn load(crate_directory: &str) -> Value {
    let directory = std::env::var_os("POSTE_VECTORS").map(PathBuf::from).unwrap_or_else(|| {
        eprintln!("POSTE_VECTORS is not set: the representative copy in testdata is used");
        Path::new(crate_directory).join("testdata")
    });
    let path = directory.join("waku-v1.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
