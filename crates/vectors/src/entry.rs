//! One entry of the vectors: reading its members, noting which were read, and altering them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::str::FromStr;

use serde_json::{Map, Value};

/// What a check says: nothing, or where our answer differs.
pub type Outcome = Result<(), String>;

/// The members of an entry; remembers which were asked for.
#[derive(Debug)]
pub struct Entry<'v> {
    members: &'v Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl<'v> Entry<'v> {
    /// An entry is an object.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(value: &'v Value) -> Result<Self, String> {
        let members = value.as_object().ok_or("the entry is no object")?;
        Ok(Self { members, read: RefCell::default() })
    }

    /// To be called at the end.
    ///
    /// # Errors
    /// When a member was never asked for.
    pub fn finish(&self) -> Outcome {
        let read = self.read.borrow();
        let unread: Vec<_> = self.members.keys().filter(|name| !read.contains(*name)).collect();
        if unread.is_empty() { Ok(()) } else { Err(format!("unchecked members: {unread:?}")) }
    }

    /// The names of all members.
    pub fn names(&self) -> impl Iterator<Item = &'v String> + use<'v> {
        self.members.keys()
    }

    /// Whether there is such a member. That is not asking for it.
    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// A member.
    ///
    /// # Errors
    /// When it is missing; those below also when it is of another kind.
    pub fn value(&self, name: &str) -> Result<&'v Value, String> {
        self.read.borrow_mut().insert(name.to_owned());
        self.members.get(name).ok_or_else(|| format!("{name} is missing"))
    }

    /// A text.
    ///
    /// # Errors
    /// See [`Self::value`].
    pub fn text(&self, name: &str) -> Result<&'v str, String> {
        self.value(name)?.as_str().ok_or_else(|| format!("{name} is no text"))
    }

    /// Bytes in hexadecimal.
    ///
    /// # Errors
    /// See [`Self::value`].
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, String> {
        hex::decode(self.text(name)?).map_err(|error| format!("{name}: {error}"))
    }

    /// So many bytes in hexadecimal.
    ///
    /// # Errors
    /// See [`Self::value`].
    pub fn array<const N: usize>(&self, name: &str) -> Result<[u8; N], String> {
        self.bytes(name)?.try_into().map_err(|_| format!("{name} has not {N} bytes"))
    }

    /// A text that is the text of something else.
    ///
    /// # Errors
    /// See [`Self::value`].
    pub fn parsed<T: FromStr>(&self, name: &str) -> Result<T, String> {
        self.text(name)?.parse().map_err(|_| format!("{name} cannot be read"))
    }

    /// A number.
    ///
    /// # Errors
    /// See [`Self::value`].
    pub fn uint(&self, name: &str) -> Result<u64, String> {
        self.value(name)?.as_u64().ok_or_else(|| format!("{name} is no unsigned integer"))
    }

    /// A number, or the text `inf`.
    ///
    /// # Errors
    /// See [`Self::value`].
    pub fn float(&self, name: &str) -> Result<f64, String> {
        match self.value(name)? {
            Value::String(text) if text == "inf" => Ok(f64::INFINITY),
            value => value.as_f64().ok_or_else(|| format!("{name} is no number")),
        }
    }

    /// Yes or no.
    ///
    /// # Errors
    /// See [`Self::value`].
    pub fn flag(&self, name: &str) -> Result<bool, String> {
        self.value(name)?.as_bool().ok_or_else(|| format!("{name} is no bool"))
    }

    /// A list.
    ///
    /// # Errors
    /// See [`Self::value`].
    pub fn list(&self, name: &str) -> Result<&'v Vec<Value>, String> {
        self.value(name)?.as_array().ok_or_else(|| format!("{name} is no list"))
    }
}

/// Compares our answer with the recorded one.
///
/// # Errors
/// When they differ.
pub fn same<T: PartialEq + Debug>(what: &str, ours: T, recorded: T) -> Outcome {
    if ours == recorded { Ok(()) } else { Err(format!("{what}: ours is {ours:?}, recorded is {recorded:?}")) }
}

/// How many values an entry has, those of nested objects included.
#[must_use]
pub fn count_members(value: &Value) -> usize {
    match value {
        Value::Object(members) => members.values().map(count_members).sum(),
        _ => 1,
    }
}

/// Copies of an entry, each with one value altered, and the name of that value.
///
/// # Panics
/// When the entry is no object, or holds what no vectors hold.
#[must_use]
pub fn alterations(value: &Value) -> Vec<(String, Value)> {
    let Value::Object(members) = value else { panic!("the entry is no object") };
    let mut copies = Vec::new();
    for (name, member) in members {
        let nested = if member.is_object() {
            alterations(member)
        } else {
            altered(name, member).into_iter().map(|value| (String::new(), value)).collect()
        };
        for (inner, member) in nested {
            let mut copy = members.clone();
            copy.insert(name.clone(), member);
            copies.push((format!("{name}.{inner}").trim_end_matches('.').to_owned(), Value::Object(copy)));
        }
    }
    copies
}

fn altered(name: &str, value: &Value) -> Vec<Value> {
    match value {
        Value::String(text) => altered_texts(text).into_iter().map(Value::from).collect(),
        Value::Bool(flag) => vec![Value::from(!flag)],
        Value::Number(number) if number.is_u64() => {
            vec![Value::from(number.as_u64().expect("checked to be one") ^ 1)]
        }
        // Mining rounds its target up to whole bits: a change must be large to mean anything.
        Value::Number(number) if name == "pow_target" => {
            let target = number.as_f64().expect("a JSON number is one");
            vec![Value::from(target * 1024.0), Value::from(-target)]
        }
        Value::Number(number) => {
            vec![Value::from(f64::from_bits(number.as_f64().expect("a JSON number is one").to_bits() ^ 1))]
        }
        Value::Array(values) => {
            let mut lists = vec![[&values[..], &["00000000".into()]].concat()];
            for (index, value) in values.iter().enumerate() {
                for value in altered(name, value) {
                    let mut list = values.clone();
                    list[index] = value;
                    lists.push(list);
                }
            }
            lists.into_iter().map(Value::from).collect()
        }
        Value::Null | Value::Object(_) => panic!("{name}: the vectors hold no such value here"),
    }
}

/// The first, the middle and the last character, each replaced by another digit.
fn altered_texts(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    if characters.is_empty() {
        return vec!["00".to_owned()];
    }
    let positions = BTreeSet::from([0, characters.len() / 2, characters.len() - 1]);
    let replace = |position: usize| {
        let mut characters = characters.clone();
        characters[position] = if characters[position] == '0' { '1' } else { '0' };
        characters.into_iter().collect()
    };
    positions.into_iter().map(replace).collect()
}
