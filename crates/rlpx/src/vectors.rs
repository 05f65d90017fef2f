//! The published and the recorded vectors: every entry, every member.
//!
//! The full files lie in the directory that `POSTE_VECTORS` names; without it the tests read the project's own
//! smaller copy in `testdata/`. Each check reads the members of an entry through [`Entry`], which knows at the end
//! which of them nobody has looked at, and can change the expected value of any one of them: then the check must fail.

mod disconnects;
mod rlpx;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::Debug;

use serde_json::Value;

/// Reads one of the files.
fn load(file: &str) -> Value {
    let path = match std::env::var("POSTE_VECTORS") {
        Ok(directory) => std::path::Path::new(&directory).join(format!("{file}.json")),
        Err(_) => {
            println!("POSTE_VECTORS is not set: reading the smaller copy of {file} in testdata");
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format!("{file}.json"))
        }
    };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Why a check failed.
type Checked = Result<(), String>;

/// One entry under check.
struct Entry<'a> {
    value: &'a Value,
    read: RefCell<BTreeSet<String>>,
    /// The member whose expected value is changed, to prove that it is compared.
    changed: Option<&'a str>,
    compared_changed: Cell<bool>,
}

impl<'a> Entry<'a> {
    fn new(value: &'a Value, changed: Option<&'a str>) -> Self {
        Self { value, read: RefCell::default(), changed, compared_changed: Cell::new(false) }
    }

    /// A member that is given to the code under test.
    fn given(&self, name: &str) -> &'a Value {
        self.read.borrow_mut().insert(name.into());
        &self.value[name]
    }

    fn given_text(&self, name: &str) -> &'a str {
        self.given(name).as_str().unwrap_or_else(|| panic!("{name} is no text: {}", self.value))
    }

    fn given_bytes(&self, name: &str) -> Vec<u8> {
        hex::decode(self.given_text(name)).unwrap()
    }

    fn given_array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.given_bytes(name).try_into().unwrap()
    }

    /// Compares a member with what the code under test made.
    fn expect(&self, name: &str, actual: impl Into<Value>) -> Checked {
        let actual = actual.into();
        let mut expected = self.given(name).clone();
        if self.changed == Some(name) {
            self.compared_changed.set(true);
            change(&mut expected);
        }
        same(name, &actual, &expected)
    }

    fn expect_bytes(&self, name: &str, actual: impl AsRef<[u8]>) -> Checked {
        self.expect(name, hex::encode(actual))
    }

    /// Every member must have been looked at.
    fn leftover(&self) -> Checked {
        let read = self.read.borrow();
        let names = self.value.as_object().unwrap().keys();
        let left: Vec<_> = names.filter(|name| !read.contains(*name)).collect();
        same("members that nobody looked at", &left, &Vec::new())
    }
}

/// Runs a check over entries; then again with each member that it compares changed, which must fail. Gives the number
/// of entries and of comparisons.
fn check_all(what: &str, entries: &[Value], check: impl Fn(&Entry) -> Checked) -> (usize, usize) {
    let mut comparisons = 0;
    for (index, value) in entries.iter().enumerate() {
        let entry = Entry::new(value, None);
        check(&entry)
            .and_then(|()| entry.leftover())
            .unwrap_or_else(|error| panic!("{what} {index}: {error}"));
        for name in value.as_object().unwrap().keys() {
            let entry = Entry::new(value, Some(name));
            let result = check(&entry);
            if entry.compared_changed.get() {
                comparisons += 1;
                assert!(result.is_err(), "{what} {index}: a changed {name} was not noticed");
            }
        }
    }
    println!("{what}: {} entries, {comparisons} comparisons", entries.len());
    assert!(!entries.is_empty(), "{what}: no entries");
    (entries.len(), comparisons)
}

fn same<T: PartialEq + Debug>(what: &str, actual: &T, expected: &T) -> Checked {
    if actual == expected { Ok(()) } else { Err(format!("{what}: got {actual:?}, expected {expected:?}")) }
}

/// Changes a value as little as possible.
fn change(value: &mut Value) {
    *value = match &*value {
        Value::String(text) => match text.as_bytes().first() {
            Some(first) => {
                let flipped = char::from_digit(char::from(*first).to_digit(16).unwrap_or(0) ^ 1, 16).unwrap();
                Value::from(format!("{flipped}{}", &text[1..]))
            }
            None => Value::from("00"),
        },
        Value::Number(number) => Value::from(number.as_u64().unwrap() + 1),
        Value::Bool(value) => Value::from(!value),
        other => panic!("cannot change {other}"),
    };
}

#[test]
fn a_change_changes() {
    for value in [Value::from("a0"), Value::from(""), Value::from("text"), Value::from(7), Value::from(true)]
    {
        let mut changed = value.clone();
        change(&mut changed);
        assert_ne!(value, changed);
    }
}
