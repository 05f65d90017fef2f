//! The payload of a request for mail in all its layouts, and the rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use poste_wire::mail::MailRequest;

fuzz_target!(|input: (u32, &[u8])| {
    let (now, payload) = input;
    if let Ok((request, form)) = MailRequest::decode(payload)
        && let Ok(valid) = request.validate(form, now)
    {
        assert!(valid.lower <= valid.upper && (1..=1000).contains(&valid.limit));
    }
});
