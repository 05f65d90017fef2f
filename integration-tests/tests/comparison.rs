//! The comparison that the whole-stack tests rest on finds every difference.

use poste_integration_tests::mail::{collect, ensure_equal};
use serde_json::{Value, json};

#[test]
fn every_difference_is_an_error() {
    let mail = |lines: &[Value]| collect(lines, "envelope");
    let posted = mail(&[line("aa", "c0"), line("bb", "c1")]).unwrap();
    assert!(ensure_equal(&posted, &posted.clone()).is_ok());
    for fetched in [
        vec![line("aa", "c0")],
        vec![line("aa", "c0"), line("bb", "c2")],
        vec![line("aa", "c0"), line("bb", "c1"), line("cc", "c3")],
    ] {
        assert!(ensure_equal(&posted, &mail(&fetched).unwrap()).is_err(), "{fetched:?}");
    }
    assert!(mail(&[line("aa", "c0"), line("aa", "c0")]).is_err(), "one twice");
}

fn line(hash: &str, data: &str) -> Value {
    json!({"event": "envelope", "hash": hash, "topic": "01020304", "time": 1, "data": data})
}
